//! An engine's answer as an HTTP response: status, headers, body.
//!
//! Executed, whatever its errors: 200 with a `data` entry. Not executed: no `data` entry; `application/json` keeps 200
//! (old clients read the body only then), `application/graphql-response+json` says it in the status.

use async_graphql::{ServerError, Value};
use graphql::Answer;
use http::{
    HeaderValue, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use poem::Response;
use serde::Serialize;

use crate::{media::Media, refusal::Refusal};

/// A request error: the specification forbids the `data` entry here.
#[derive(Serialize)]
struct RequestError<'a> {
    errors: &'a [ServerError],
}

/// Names the request in each error that does not.
pub(crate) fn sign(answer: &mut Answer, request_id: &str) {
    for error in &mut answer.response.errors {
        let extensions = error.extensions.get_or_insert_default();
        if extensions.get("requestId").is_none() {
            extensions.set("requestId", request_id);
        }
    }
}

/// The response that refuses what is no GraphQL: JSON, and the status says it.
///
/// # Errors
/// As [`respond`].
pub(crate) fn refuse(answer: Answer, request_id: &str) -> Result<Response, Refusal> {
    let mut response = respond(answer, Media::GraphQl, request_id)?;
    response.headers_mut().insert(CONTENT_TYPE, Media::Json.content_type());
    Ok(response)
}

/// The response that carries `answer` as `media`.
///
/// # Errors
/// Where the answer cannot be written as JSON, which no answer of ours should be.
pub(crate) fn respond(
    mut answer: Answer,
    media: Media,
    request_id: &str,
) -> Result<Response, Refusal> {
    sign(&mut answer, request_id);
    let body = if answer.executed {
        serde_json::to_vec(&answer.response)
    } else {
        serde_json::to_vec(&RequestError { errors: &answer.response.errors })
    };
    let body = body.map_err(|error| {
        tracing::error!(%error, "an answer cannot be written as JSON");
        Refusal::internal().with_media(media)
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

/// The status of a request that was not executed.
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

/// The error's code.
pub(crate) fn code(error: &ServerError) -> Option<&str> {
    match error.extensions.as_ref()?.get("code")? {
        Value::String(code) => Some(code),
        Value::Enum(code) => Some(code),
        _ => None,
    }
}

/// Rounded up: a client that comes back a moment early is refused again.
fn retry_after_seconds(error: &ServerError) -> Option<u64> {
    match error.extensions.as_ref()?.get("retryAfterMs")? {
        Value::Number(milliseconds) => milliseconds.as_u64().map(|value| value.div_ceil(1000)),
        _ => None,
    }
}
