//! An answer to a client that is still sending.
//!
//! Closing a socket that has unread bytes makes the kernel send a reset, and the client would lose the very answer that
//! explains it. So the answer goes out at once, and its end is held back a little while we read on: a client that looks
//! (curl does) stops sending, others are cut off.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt, stream};
use http::{
    HeaderMap, HeaderValue,
    header::{CONNECTION, CONTENT_LENGTH, EXPECT},
};
use poem::{Body, Response};

use super::incoming::Incoming;

/// How long, and how much, we read on.
const PATIENCE: Duration = Duration::from_secs(2);
const MOST_BYTES: usize = 8 * 1024 * 1024;

/// The response, held open while the client sends what nobody wants.
pub(super) fn until_sent(response: Response, incoming: Incoming, request: &HeaderMap) -> Response {
    if !incoming.is_open() || is_empty(request) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    if !incoming.is_begun() && request.contains_key(EXPECT) {
        return Response::from_parts(parts, body); // It waits for our word, and gets another.
    }
    let rest = async move {
        // Both outcomes end in the same close.
        let _ = tokio::time::timeout(PATIENCE, incoming.discard(MOST_BYTES)).await;
    };
    let rest = rest.into_stream().filter_map(|()| async { None });
    let answer = body.into_bytes_stream();
    Response::from_parts(parts, Body::from_bytes_stream(stream::StreamExt::chain(answer, rest)))
}

/// Whether there is no body at all, so that nothing can be left of it.
fn is_empty(request: &HeaderMap) -> bool {
    match request.get(CONTENT_LENGTH) {
        Some(length) => length == "0",
        None => !request.contains_key(http::header::TRANSFER_ENCODING),
    }
}
