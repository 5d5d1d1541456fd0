//! Error responses of the HTTP edge, with one envelope on all routes.
//!
//! Endpoints return a `RequestError` as `poem::Error`. Only `edge` turns it into a response, because only `edge` knows
//! the request id. The body is `{"errors":[{"message","extensions":{"code","requestId"}}]}`, never with a `data` entry.

use std::borrow::Cow;

use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{ALLOW, CONTENT_TYPE},
};
use poem::{Response, error::ResponseError};
use serde_json::json;

use crate::media::Media;

/// Error codes that the HTTP edge assigns. Codes of the engine are sent unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    Validation,
    Forbidden,
    NotFound,
    RateLimited,
    Timeout,
    Internal,
}

impl Code {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Validation => "VALIDATION",
            Self::Forbidden => "FORBIDDEN",
            Self::NotFound => "NOT_FOUND",
            Self::RateLimited => "RATE_LIMITED",
            Self::Timeout => "TIMEOUT",
            Self::Internal => "INTERNAL",
        }
    }
}

/// Error response: status, code, message and optionally one header.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct RequestError {
    status: StatusCode,
    code: Code,
    message: Cow<'static, str>,
    media: Media,
    header: Option<(HeaderName, HeaderValue)>,
}

impl ResponseError for RequestError {
    fn status(&self) -> StatusCode {
        self.status
    }
}

impl RequestError {
    pub(crate) fn new(
        status: StatusCode,
        code: Code,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { status, code, message: message.into(), media: Media::Json, header: None }
    }

    /// Builds a 400 for a request that cannot be parsed; `message` names the position or the parameter.
    pub(crate) fn malformed(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Code::Validation, message)
    }

    /// Builds a 405 that names the allowed methods.
    pub(crate) fn method_not_allowed(allow: &'static str) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            Code::Validation,
            format!("This URL accepts {allow} only."),
        )
        .with_header(ALLOW, HeaderValue::from_static(allow))
    }

    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, Code::NotFound, "There is no resource at this URL.")
    }

    pub(crate) fn timeout() -> Self {
        Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            Code::Timeout,
            "The request took too long and was stopped.",
        )
    }

    pub(crate) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            Code::Internal,
            "Internal server error; the server's log has the details under this request id.",
        )
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some((name, value));
        self
    }

    pub(crate) fn with_media(mut self, media: Media) -> Self {
        self.media = media;
        self
    }

    /// Returns the error envelope as JSON text.
    pub(crate) fn body(&self, request_id: &str) -> String {
        json!({
            "errors": [{
                "message": self.message,
                "extensions": { "code": self.code.as_str(), "requestId": request_id },
            }]
        })
        .to_string()
    }

    pub(crate) fn into_response(self, request_id: &str) -> Response {
        let body = self.body(request_id);
        let mut response = Response::builder().status(self.status).body(body);
        response.headers_mut().insert(CONTENT_TYPE, self.media.content_type());
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// Maps errors of `poem`, mostly unknown routes, to the messages of this module.
impl From<poem::Error> for RequestError {
    fn from(error: poem::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(error) => error,
            Err(error) => match error.status() {
                StatusCode::NOT_FOUND => Self::not_found(),
                status if status.is_client_error() => {
                    Self::new(status, Code::Validation, "The request is not valid for this URL.")
                }
                _ => Self::internal(),
            },
        }
    }
}
