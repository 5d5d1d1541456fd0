//! CORS: an explicit list of origins that may read responses, compared exactly and never reflected.
//!
//! Credentials are not allowed. The API uses bearer tokens instead of cookies, so a page of another origin can send a
//! request, but the browser adds no token. The request is served, and the browser hides the response from the page.

use std::{fmt, str::FromStr};

use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HOST,
        ORIGIN, VARY,
    },
};
use poem::Response;

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST");
const HEADERS: HeaderValue = HeaderValue::from_static("authorization, content-type, x-request-id");
const EXPOSED: HeaderValue = HeaderValue::from_static("x-request-id, retry-after");
const MAX_AGE_SECONDS: HeaderValue = HeaderValue::from_static("600");
const PREFLIGHT_VARY: HeaderValue =
    HeaderValue::from_static("access-control-request-method, access-control-request-headers");

/// Origin `scheme://host[:port]`, exactly as a browser sends it. Wildcards and `null` are not allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(HeaderValue);

/// Error for a text that is not the origin of a web page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an origin must be scheme://host[:port] in lower case, without path or default port; * and null are not allowed"
)]
pub struct InvalidOrigin;

impl Origin {
    /// Returns the default origin: a frontend's development server on the same machine.
    pub(crate) const fn local_development() -> Self {
        Self(HeaderValue::from_static("http://localhost:3000"))
    }
}

impl FromStr for Origin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let url = url::Url::parse(text).map_err(|_| InvalidOrigin)?;
        // A browser sends the canonical form; any other form would never match.
        let is_canonical =
            matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization() == text;
        if !is_canonical || text.contains('*') {
            return Err(InvalidOrigin);
        }
        HeaderValue::from_str(text).map(Self).map_err(|_| InvalidOrigin)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0.to_str().unwrap_or_default())
    }
}

/// CORS policy with its list of allowed origins.
#[derive(Debug, Clone)]
pub(crate) struct Cors(pub(crate) Vec<Origin>);

impl Cors {
    /// Returns true for a CORS preflight. Preflights are answered before routing, so they reveal nothing about routes.
    pub(crate) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
        method == Method::OPTIONS
            && headers.contains_key(ORIGIN)
            && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// Builds the 204 response to a preflight. For an allowed origin, its headers and those of [`Cors::apply`] permit
    /// the actual request.
    pub(crate) fn preflight(&self, request: &HeaderMap) -> Response {
        let mut response = Response::builder().status(StatusCode::NO_CONTENT).finish();
        let headers = response.headers_mut();
        if self.allowed(request).is_some() {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
            headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE_SECONDS);
        }
        headers.append(VARY, PREFLIGHT_VARY);
        response
    }

    /// Adds `Vary: Origin` to the response and, for an allowed origin, the headers that let its pages read the
    /// response.
    pub(crate) fn apply(allowed: Option<HeaderValue>, response: &mut HeaderMap) {
        const VARY_ORIGIN: HeaderValue = HeaderValue::from_static("origin");
        response.append(VARY, VARY_ORIGIN);
        if let Some(origin) = allowed {
            response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            response.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }

    /// Returns true if the request is allowed to open a WebSocket. Browsers open sockets without a preflight and let
    /// the page read the messages, so no other check protects them. A request without `Origin` is not from a browser
    /// and is allowed. Any other request must come from this server's own pages or from an allowed origin.
    pub(crate) fn may_open(&self, request: &HeaderMap) -> bool {
        !request.contains_key(ORIGIN) || is_same_host(request) || self.allowed(request).is_some()
    }

    /// Returns the `Origin` header of the request if the header occurs once and the origin is allowed.
    pub(crate) fn allowed(&self, request: &HeaderMap) -> Option<HeaderValue> {
        let mut origins = request.get_all(ORIGIN).iter();
        let origin = origins.next()?;
        if origins.next().is_some() {
            return None;
        }
        self.0.iter().find(|allowed| allowed.0 == origin).map(|allowed| allowed.0.clone())
    }
}

/// Returns true if the `Origin` header has the host and port of the `Host` header. Schemes are not compared, because a
/// proxy may terminate TLS.
fn is_same_host(request: &HeaderMap) -> bool {
    let mut origins = request.get_all(ORIGIN).iter();
    let (Some(origin), None) = (origins.next(), origins.next()) else { return false };
    let Some(host) = request.get(HOST) else { return false };
    let authority = [b"http://".as_slice(), b"https://"]
        .into_iter()
        .find_map(|scheme| origin.as_bytes().strip_prefix(scheme));
    authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_opens_from_our_own_page_from_the_list_and_from_no_browser() {
        let cors = Cors(vec!["https://console.example.com".parse().unwrap()]);
        for (origins, may) in [
            (&[][..], true),
            (&["http://ops.example.com:8080"], true),
            (&["https://ops.example.com:8080"], true),
            (&["https://console.example.com"], true),
            (&["http://console.example.com"], false),
            (&["http://ops.example.com"], false),
            (&["https://evil.example"], false),
            (&["null"], false),
            (&[""], false),
            (&["ops.example.com:8080"], false),
            (&["http://ops.example.com:8080", "https://console.example.com"], false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static("ops.example.com:8080"));
            for origin in origins {
                headers.append(ORIGIN, HeaderValue::from_static(origin));
            }
            assert_eq!(cors.may_open(&headers), may, "{origins:?}");
        }
    }

    #[test]
    fn only_a_canonical_web_origin_is_an_origin() {
        for good in ["https://console.example.com", "http://localhost:3000", "https://[::1]:8443"] {
            assert_eq!(good.parse::<Origin>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "*",
            "null",
            "https://*.example.com",
            "https://example.com/",
            "https://example.com:443",
            "https://Example.com",
            "https://user@example.com",
            "example.com",
            "file:///etc",
            "https://example.com?x",
        ] {
            assert!(bad.parse::<Origin>().is_err(), "{bad}");
        }
    }
}
