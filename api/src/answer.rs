//! Converts an answer of the engine into an HTTP response: status, headers, body. An answer ([`Answer`]) is a GraphQL
//! response with the flag `executed`.
//!
//! An executed request gets 200 with a `data` entry, even if it has errors. A request that was not executed gets no
//! `data` entry. With `application/json` its status is 200, because older clients read no body with another status.
//! With `application/graphql-response+json`, the code of the first error decides the status.

use async_graphql::{ServerError, Value};
use graphql::Answer;
use http::{
    HeaderValue, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use poem::Response;
use serde::Serialize;

use crate::{media::Media, request_error::RequestError};

/// Body for a request that was not executed. The GraphQL specification forbids a `data` entry in this case.
#[derive(Serialize)]
struct ErrorBody<'a> {
    errors: &'a [ServerError],
}

/// Adds `requestId` to the extensions of each error without this entry.
pub(crate) fn add_request_id(answer: &mut Answer, request_id: &str) {
    for error in &mut answer.response.errors {
        let extensions = error.extensions.get_or_insert_default();
        if extensions.get("requestId").is_none() {
            extensions.set("requestId", request_id);
        }
    }
}

/// Builds the error response of a route other than the GraphQL endpoint: plain JSON with the status of the error.
///
/// # Errors
/// See [`respond`].
pub(crate) fn error_response(answer: Answer, request_id: &str) -> Result<Response, RequestError> {
    let mut response = respond(answer, Media::GraphQl, request_id)?;
    response.headers_mut().insert(CONTENT_TYPE, Media::Json.content_type());
    Ok(response)
}

/// Builds the response with `answer` as its body, in the media type `media`.
///
/// # Errors
/// 500 if the answer cannot be serialized as JSON, which would be a bug.
pub(crate) fn respond(
    mut answer: Answer,
    media: Media,
    request_id: &str,
) -> Result<Response, RequestError> {
    add_request_id(&mut answer, request_id);
    let body = if answer.executed {
        serde_json::to_vec(&answer.response)
    } else {
        serde_json::to_vec(&ErrorBody { errors: &answer.response.errors })
    };
    let body = body.map_err(|error| {
        tracing::error!(%error, "an answer cannot be serialized as JSON");
        RequestError::internal().with_media(media)
    })?;

    let mut response = Response::builder().body(body);
    response.headers_mut().insert(CONTENT_TYPE, media.content_type());
    if answer.executed {
        return Ok(response);
    }
    let code = answer.response.errors.first().and_then(code);
    let status = status(code);
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(seconds) = answer.response.errors.iter().filter_map(retry_after_seconds).max() {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response.set_status(match media {
        Media::GraphQl => status,
        Media::Json => StatusCode::OK,
    });
    Ok(response)
}

/// Maps the code of the first error to the status of a request that was not executed.
fn status(code: Option<&str>) -> StatusCode {
    match code {
        Some("UNAUTHENTICATED") => StatusCode::UNAUTHORIZED,
        Some("FORBIDDEN") => StatusCode::FORBIDDEN,
        Some("NOT_FOUND") => StatusCode::NOT_FOUND,
        Some("CONFLICT") => StatusCode::CONFLICT,
        Some("RATE_LIMITED") => StatusCode::TOO_MANY_REQUESTS,
        Some("DEPENDENCY_UNAVAILABLE") => StatusCode::SERVICE_UNAVAILABLE,
        Some("TIMEOUT") => StatusCode::GATEWAY_TIMEOUT,
        Some("INTERNAL") => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    }
}

/// Returns the `code` from the extensions of an error.
pub(crate) fn code(error: &ServerError) -> Option<&str> {
    match error.extensions.as_ref()?.get("code")? {
        Value::String(code) => Some(code),
        Value::Enum(code) => Some(code),
        _ => None,
    }
}

/// Returns `retryAfterMs` from the extensions of an error in whole seconds. The value is rounded up, because a client
/// that retries too early is rejected again.
fn retry_after_seconds(error: &ServerError) -> Option<u64> {
    match error.extensions.as_ref()?.get("retryAfterMs")? {
        Value::Number(milliseconds) => milliseconds.as_u64().map(|value| value.div_ceil(1000)),
        _ => None,
    }
}
