//! Responds to a client that is still sending.
//!
//! Closing a socket with unread bytes makes the kernel send a TCP reset, and the client would lose the response.
//! Therefore the response is sent immediately, and the end of its body is delayed while the remaining bytes of the
//! request are read and discarded. A client that reads while sending (curl does) stops sending; others are
//! disconnected.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt, stream};
use http::{
    HeaderMap, HeaderValue,
    header::{CONNECTION, CONTENT_LENGTH, EXPECT},
};
use poem::{Body, Response};

use super::incoming::Incoming;

/// Maximum time for which the remaining bytes of the request are read and discarded.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum number of discarded bytes of the request.
const MAX_DISCARDED_BYTES: usize = 8 * 1024 * 1024;

/// Delays the end of the response until the client stops sending or a limit is reached.
pub(super) fn hold_open(response: Response, incoming: Incoming, request: &HeaderMap) -> Response {
    if !incoming.is_open() || is_empty(request) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    if !incoming.has_begun() && request.contains_key(EXPECT) {
        return Response::from_parts(parts, body); // The client waits for `100 Continue` and has not sent the body.
    }
    let rest = async move {
        // The result is ignored: the connection is closed whether or not the client has stopped sending.
        let _ = tokio::time::timeout(DISCARD_TIMEOUT, incoming.discard(MAX_DISCARDED_BYTES)).await;
    };
    let rest = rest.into_stream().filter_map(|()| async { None });
    let answer = body.into_bytes_stream();
    Response::from_parts(parts, Body::from_bytes_stream(stream::StreamExt::chain(answer, rest)))
}

/// Returns true if the request has no body.
fn is_empty(request: &HeaderMap) -> bool {
    match request.get(CONTENT_LENGTH) {
        Some(length) => length == "0",
        None => !request.contains_key(http::header::TRANSFER_ENCODING),
    }
}
