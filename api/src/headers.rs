//! The headers that every response carries, error or not, ours or hyper's.
//!
//! `Cross-Origin-Resource-Policy: same-origin` does not stop allowed pages: the browser does not look at it for requests
//! made with CORS. A route may say its own CSP and `Cache-Control`; the rest is not negotiable.

use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{
        CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
        X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
    },
};

use crate::{
    client::REQUEST_ID,
    config::Hsts,
    refusal::{Code, Refusal},
};

const ALWAYS: [(HeaderName, HeaderValue); 6] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (REFERRER_POLICY, HeaderValue::from_static("strict-origin-when-cross-origin")),
    (
        HeaderName::from_static("permissions-policy"),
        HeaderValue::from_static("camera=(), microphone=(), geolocation=()"),
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

const UNLESS_SAID: [(HeaderName, HeaderValue); 2] = [
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    ),
];

/// Which headers this deployment sends.
#[derive(Debug, Clone, Default)]
pub(crate) struct Headers {
    hsts: Option<HeaderValue>,
}

impl Headers {
    pub(crate) fn of(hsts: Option<Hsts>) -> Self {
        let value = |Hsts { max_age, preload }: Hsts| {
            let preload = if preload { "; preload" } else { "" };
            let text = format!("max-age={}; includeSubDomains{preload}", max_age.as_secs());
            HeaderValue::from_str(&text).expect("digits and plain words are a header value")
        };
        Self { hsts: hsts.map(value) }
    }

    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in ALWAYS {
            headers.insert(name, value);
        }
        for (name, value) in UNLESS_SAID {
            headers.entry(name).or_insert(value);
        }
        if let Some(hsts) = &self.hsts {
            headers.insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
    }

    /// What we send instead of hyper's bare refusal of bytes that are no request.
    pub(crate) fn unreadable_request(&self, status: StatusCode, request_id: &str) -> Vec<u8> {
        let message = match status {
            StatusCode::URI_TOO_LONG | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                "The head of the request is too large."
            }
            _ => "This is not a request in HTTP/1.1.",
        };
        let refusal = Refusal::new(status, Code::Validation, message);
        let body = refusal.body(request_id);
        let mut headers = refusal.into_response(request_id).headers().clone();
        self.apply(&mut headers);
        let mut wire = format!("HTTP/1.1 {status}\r\n").into_bytes();
        for (name, value) in &headers {
            wire.extend_from_slice(name.as_str().as_bytes());
            wire.extend_from_slice(b": ");
            wire.extend_from_slice(value.as_bytes());
            wire.extend_from_slice(b"\r\n");
        }
        let rest = format!(
            "{REQUEST_ID}: {request_id}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        wire.extend_from_slice(rest.as_bytes());
        wire
    }
}
