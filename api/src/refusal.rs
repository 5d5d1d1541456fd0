//! What we say when we do not do what was asked: one envelope for every error, whatever the route.
//!
//! Endpoints return a `Refusal` as `poem::Error`; `edge` alone turns it into a response, because only there the request
//! id is known. `{"errors":[{"message","extensions":{"code","requestId"}}]}`, never a `data` entry.

use std::borrow::Cow;

use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{ALLOW, CONTENT_TYPE},
};
use poem::{Response, error::ResponseError};
use serde_json::json;

use crate::media::Media;

/// The codes that the edge gives by itself; those of the engine pass through.
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

/// An answer without data.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refusal {
    status: StatusCode,
    code: Code,
    message: Cow<'static, str>,
    media: Media,
    header: Option<(HeaderName, HeaderValue)>,
}

impl ResponseError for Refusal {
    fn status(&self) -> StatusCode {
        self.status
    }
}

impl Refusal {
    pub(crate) fn new(
        status: StatusCode,
        code: Code,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { status, code, message: message.into(), media: Media::Json, header: None }
    }

    /// 400: the request cannot be understood; `message` says where.
    pub(crate) fn malformed(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Code::Validation, message)
    }

    /// 405 with the methods that would have been right.
    pub(crate) fn method(allow: &'static str) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            Code::Validation,
            format!("This address answers to {allow} only."),
        )
        .with_header(ALLOW, HeaderValue::from_static(allow))
    }

    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, Code::NotFound, "There is nothing at this address.")
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
            "Something went wrong on our side; the request id leads to the details in our logs.",
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

    /// The envelope's text.
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

/// What `poem` itself refuses (unknown routes, mostly) in our words.
impl From<poem::Error> for Refusal {
    fn from(error: poem::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(refusal) => refusal,
            Err(error) => match error.status() {
                StatusCode::NOT_FOUND => Self::not_found(),
                status if status.is_client_error() => {
                    Self::new(status, Code::Validation, "The request cannot be served as it is.")
                }
                _ => Self::internal(),
            },
        }
    }
}
