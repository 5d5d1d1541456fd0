//! HTTP headers that are part of every response, success or error, including the responses that hyper itself creates.
//!
//! `Cross-Origin-Resource-Policy: same-origin` does not block allowed origins, because browsers ignore this header for
//! CORS requests. A route may set its own `Content-Security-Policy` and `Cache-Control`; all other headers are fixed.

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
    request_error::{Code, RequestError},
};

const FIXED_HEADERS: [(HeaderName, HeaderValue); 6] = [
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

const DEFAULT_HEADERS: [(HeaderName, HeaderValue); 2] = [
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    ),
];

/// Response headers of this deployment; only HSTS is configurable.
#[derive(Debug, Clone, Default)]
pub(crate) struct ResponseHeaders {
    hsts: Option<HeaderValue>,
}

impl ResponseHeaders {
    pub(crate) fn of(hsts: Option<Hsts>) -> Self {
        let value = |Hsts { max_age, preload }: Hsts| {
            let preload = if preload { "; preload" } else { "" };
            let text = format!("max-age={}; includeSubDomains{preload}", max_age.as_secs());
            HeaderValue::from_str(&text).expect("digits and plain words are a header value")
        };
        Self { hsts: hsts.map(value) }
    }

    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in FIXED_HEADERS {
            headers.insert(name, value);
        }
        for (name, value) in DEFAULT_HEADERS {
            headers.entry(name).or_insert(value);
        }
        if let Some(hsts) = &self.hsts {
            headers.insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
    }

    /// Returns the bytes of the response that replaces hyper's empty reply to an unreadable request.
    pub(crate) fn unreadable_request(&self, status: StatusCode, request_id: &str) -> Vec<u8> {
        let message = match status {
            StatusCode::URI_TOO_LONG | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                "The request head is too large: shorten the URL or send fewer headers."
            }
            _ => "The bytes are not a valid HTTP/1.1 request.",
        };
        let error = RequestError::new(status, Code::Validation, message);
        let body = error.body(request_id);
        let mut headers = error.into_response(request_id).headers().clone();
        self.apply(&mut headers);
        let mut response = format!("HTTP/1.1 {status}\r\n").into_bytes();
        for (name, value) in &headers {
            response.extend_from_slice(name.as_str().as_bytes());
            response.extend_from_slice(b": ");
            response.extend_from_slice(value.as_bytes());
            response.extend_from_slice(b"\r\n");
        }
        let rest = format!(
            "{REQUEST_ID}: {request_id}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        response.extend_from_slice(rest.as_bytes());
        response
    }
}
