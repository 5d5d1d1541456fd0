//! Reads the body of a request. The size limit is enforced while reading, because `Content-Length` can be wrong or
//! absent.
//!
//! After a body exceeds the limit, its remaining bytes are read and discarded for a short time, and only then the
//! request is rejected. Closing a socket with unread bytes makes the kernel send a TCP reset, and the client would lose
//! the response that explains the rejection.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE},
};
use poem::Body;

use crate::request_error::{Code, RequestError};

/// Maximum time for which the remaining bytes of an oversized body are read and discarded.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum number of discarded bytes, as a multiple of the size limit of the body.
const DISCARD_LIMIT_FACTOR: usize = 2;

/// Reads the complete body into memory.
///
/// # Errors
/// 413 if the body is larger than `limit` bytes; 400 if the body ends before it is complete.
pub(crate) async fn read(body: Body, limit: usize) -> Result<Bytes, RequestError> {
    let mut chunks = std::pin::pin!(body.into_bytes_stream());
    let mut received = BytesMut::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| {
            RequestError::malformed("The request body is incomplete; send the request again.")
        })?;
        if received.len() + chunk.len() > limit {
            drop(received);
            // The result is ignored: the request is rejected whether or not the client has stopped sending by then.
            let _ = tokio::time::timeout(
                DISCARD_TIMEOUT,
                discard(chunks, limit * DISCARD_LIMIT_FACTOR),
            )
            .await;
            return Err(RequestError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                Code::Validation,
                format!("The body is larger than {limit} bytes."),
            ));
        }
        received.extend_from_slice(&chunk);
    }
    Ok(received.freeze())
}

async fn discard<E>(mut chunks: impl Stream<Item = Result<Bytes, E>> + Unpin, max_bytes: usize) {
    let mut read = 0;
    while let Some(Ok(chunk)) = chunks.next().await {
        read += chunk.len();
        if read > max_bytes {
            return;
        }
    }
}

/// Rejects a body that is not declared as uncompressed JSON in UTF-8. A page of another origin cannot send this media
/// type without a CORS preflight. The check is the only defence against CSRF, so it accepts no similar media type.
///
/// # Errors
/// 415 for any other media type, charset or encoding.
pub(crate) fn require_json(headers: &HeaderMap) -> Result<(), RequestError> {
    let identity = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .all(|value| value.as_bytes().eq_ignore_ascii_case(b"identity"));
    if !identity {
        return Err(RequestError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Code::Validation,
            "The body must not be compressed.",
        )
        .with_header(ACCEPT_ENCODING, HeaderValue::from_static("identity")));
    }
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let is_json = match (types.next(), types.next()) {
        (Some(value), None) => value.to_str().is_ok_and(is_json),
        _ => false,
    };
    if is_json {
        return Ok(());
    }
    Err(RequestError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Code::Validation,
        "The body must be sent as `Content-Type: application/json`.",
    ))
}

/// Returns true for `application/json` with no parameter except `charset=utf-8`.
fn is_json(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    let essence = parts.next().is_some_and(|part| part.eq_ignore_ascii_case("application/json"));
    essence
        && parts.all(|part| {
            part.split_once('=').is_some_and(|(name, value)| {
                name.eq_ignore_ascii_case("charset")
                    && value.trim_matches('"').eq_ignore_ascii_case("utf-8")
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_in_utf_8_is_json() {
        for accepted in [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
        ] {
            assert!(is_json(accepted), "{accepted}");
        }
        for refused in [
            "",
            "text/plain",
            "text/plain; application/json",
            "application/json, text/plain",
            "application/json; charset=latin1",
            "application/json; boundary=x",
            "application/json;",
            "application/jsonp",
            "application/graphql",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=application/json",
        ] {
            assert!(!is_json(refused), "{refused}");
        }
    }
}
