//! Small public routes: `/`, `/favicon.ico`, and `security.txt` with the contact for vulnerability reports.

use chrono::{DateTime, Days, NaiveTime, SecondsFormat, Utc};
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, LOCATION, VARY},
};
use poem::{Request, Response};
use serde_json::json;

use crate::{media::Media, request_error::RequestError};

/// Contact for vulnerability reports; the same address as in SECURITY.md.
const SECURITY_CONTACT: &str = "mailto:security@sentryops.example";
/// Days until security.txt expires; RFC 9116 recommends less than a year.
const SECURITY_VALID_DAYS: Days = Days::new(180);

/// Handler of `/`: redirects browsers to the playground, and returns the path of the GraphQL endpoint to other clients.
pub(crate) struct Welcome {
    playground: bool,
}

impl Welcome {
    pub(crate) const fn new(playground: bool) -> Self {
        Self { playground }
    }
}

impl poem::Endpoint for Welcome {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        require_read(&request)?;
        let mut response = if self.playground && is_browser(request.headers()) {
            see_other("/playground")
        } else {
            let mut map = json!({ "name": "SentryOps", "graphql": "/graphql" });
            if self.playground {
                map["playground"] = json!("/playground");
            }
            let mut response = Response::builder().body(map.to_string());
            response.headers_mut().insert(CONTENT_TYPE, Media::Json.content_type());
            response
        };
        response.headers_mut().append(VARY, HeaderValue::from_static("accept"));
        Ok(response)
    }
}

/// Handler of `/favicon.ico`, which browsers request on every site.
pub(crate) struct Favicon {
    playground: bool,
}

impl Favicon {
    pub(crate) const fn new(playground: bool) -> Self {
        Self { playground }
    }
}

impl poem::Endpoint for Favicon {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        require_read(&request)?;
        Ok(if self.playground {
            see_other("/playground/favicon.svg")
        } else {
            Response::builder().status(StatusCode::NO_CONTENT).finish()
        })
    }
}

/// Handler of `/.well-known/security.txt` (RFC 9116).
pub(crate) struct SecurityTxt;

impl poem::Endpoint for SecurityTxt {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        require_read(&request)?;
        #[expect(
            clippy::disallowed_methods,
            reason = "only this text depends on the date; callers pass no clock"
        )]
        let now = Utc::now();
        let mut response = Response::builder().body(security_txt(now));
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        Ok(response)
    }
}

/// Returns the text of security.txt. The expiry is at midnight UTC, so that the text changes only once a day.
fn security_txt(now: DateTime<Utc>) -> String {
    let expires_at = (now.date_naive() + SECURITY_VALID_DAYS).and_time(NaiveTime::MIN).and_utc();
    let expires_at = expires_at.to_rfc3339_opts(SecondsFormat::Secs, true);
    format!("Contact: {SECURITY_CONTACT}\nExpires: {expires_at}\nPreferred-Languages: en\n")
}

fn require_read(request: &Request) -> Result<(), RequestError> {
    match *request.method() {
        Method::GET | Method::HEAD => Ok(()),
        _ => Err(RequestError::method_not_allowed("GET, HEAD")),
    }
}

fn is_browser(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.to_ascii_lowercase().contains("text/html"))
}

fn see_other(location: &'static str) -> Response {
    Response::builder().status(StatusCode::SEE_OTHER).header(LOCATION, location).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_txt_expires_within_a_year() {
        let now = "2026-03-01T13:14:15Z".parse().unwrap();
        assert_eq!(
            security_txt(now),
            "Contact: mailto:security@sentryops.example\n\
             Expires: 2026-08-28T00:00:00Z\nPreferred-Languages: en\n"
        );
    }
}
