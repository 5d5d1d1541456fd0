//! Which web pages may read our answers: an explicit list, compared exactly, never reflected.
//!
//! No credentials: the API takes bearers, not cookies, so a page of a foreign origin can send a request but holds nothing
//! to send with it. Such a request is served, and the browser keeps the answer from the page.

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

/// `scheme://host[:port]` exactly as a browser sends it. There is no wildcard and no `null`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(HeaderValue);

/// Not the origin of a web page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an origin is scheme://host[:port], lower case, without path or default port; neither * nor null is one"
)]
pub struct InvalidOrigin;

impl Origin {
    /// The default: a frontend's development server on this machine.
    pub(crate) const fn local_development() -> Self {
        Self(HeaderValue::from_static("http://localhost:3000"))
    }
}

impl FromStr for Origin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let url = url::Url::parse(text).map_err(|_| InvalidOrigin)?;
        // A browser sends the canonical form; any other would silently never match.
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

/// The list, applied.
#[derive(Debug, Clone)]
pub(crate) struct Cors(pub(crate) Vec<Origin>);

impl Cors {
    /// A browser asks whether it may ask. Answered before any route, so it tells nothing about routes.
    pub(crate) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
        method == Method::OPTIONS
            && headers.contains_key(ORIGIN)
            && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// 204; for the right origin [`Cors::apply`] and these make it a yes.
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

    /// Every answer depends on `Origin`, and says so; those to an allowed one may be read.
    pub(crate) fn apply(allowed: Option<HeaderValue>, response: &mut HeaderMap) {
        const VARY_ORIGIN: HeaderValue = HeaderValue::from_static("origin");
        response.append(VARY, VARY_ORIGIN);
        if let Some(origin) = allowed {
            response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            response.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }

    /// Whether a socket may be opened. Browsers ask nobody before they do, and let the page read what comes: so this is
    /// the only check. Without an origin it is no browser; with one it is our own page's or one of the list.
    pub(crate) fn may_open(&self, request: &HeaderMap) -> bool {
        !request.contains_key(ORIGIN) || is_own(request) || self.allowed(request).is_some()
    }

    /// The request's origin, if it is one of ours and there is only one.
    pub(crate) fn allowed(&self, request: &HeaderMap) -> Option<HeaderValue> {
        let mut origins = request.get_all(ORIGIN).iter();
        let origin = origins.next()?;
        if origins.next().is_some() {
            return None;
        }
        self.0.iter().find(|allowed| allowed.0 == origin).map(|allowed| allowed.0.clone())
    }
}

/// Whether the page comes from where the request goes. The scheme is not compared: a proxy may have taken it off.
fn is_own(request: &HeaderMap) -> bool {
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
