//! `POST /import/assets` and `/import/dependencies`: streams a file into an import. (`upload/order`: URL parameters and
//! media type; `upload/incoming`: the bytes; `upload/linger`: responding while a client is still sending.)
//!
//! Only these routes have no overall deadline, because a file of up to 512 MiB takes as long as the network needs.
//! Instead, the client must keep a minimum rate, and its session must stay valid. Where possible, a request is rejected
//! before its body is read. A client that sends `Expect: 100-continue` (curl does, from 1 MiB) then never sends the
//! body.

use std::{pin::pin, sync::Arc};

use domain::inventory::import::{ImportKind, chunker::MAX_FILE_BYTES};
use futures_util::stream;
use graphql::{Client, Received, UploadAbort};
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH},
};
use poem::{Request, Response};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    answer, bearer,
    config::Limits,
    connection::ConnectionDeadline,
    gateway::Gateway,
    request_error::{Code, RequestError},
    socket::slots::Slots,
};
use incoming::Incoming;

mod incoming;
mod linger;
mod order;

/// Handler of one of the two import routes.
pub(crate) struct Upload<G> {
    kind: ImportKind,
    gateway: Arc<G>,
    limits: Limits,
    slots: Slots,
    shutdown: CancellationToken,
}

/// Import routes, each with the kind of its rows.
pub(crate) const ROUTES: [(&str, ImportKind); 2] =
    [("/import/assets", ImportKind::Assets), ("/import/dependencies", ImportKind::Dependencies)];

/// Returns true if requests to this path have no overall deadline.
pub(crate) fn has_no_deadline(path: &str) -> bool {
    ROUTES.iter().any(|(route, _)| *route == path)
}

impl<G: Gateway> Upload<G> {
    pub(crate) fn new(
        kind: ImportKind,
        gateway: Arc<G>,
        limits: &Limits,
        slots: Slots,
        shutdown: CancellationToken,
    ) -> Self {
        Self { kind, gateway, limits: limits.clone(), slots, shutdown }
    }

    async fn respond(
        &self,
        request: &Request,
        client: &Client,
        incoming: &mut Incoming,
    ) -> Result<Response, RequestError> {
        if request.method() != Method::POST {
            return Err(RequestError::method_not_allowed("POST"));
        }
        let error_response = |answer| answer::error_response(answer, &client.request_id);
        if let Err(refused) = self.gateway.admit(client).await {
            return error_response(refused);
        }
        let order = match order::read(self.kind, request.uri(), request.headers()) {
            Ok(order) => order,
            Err(order::OrderError::Rejected(error)) => return Err(error),
            Err(order::OrderError::Parameters(error)) => {
                return error_response(graphql::refused(&error));
            }
        };
        check_encoding(request.headers())?;
        check_length(request.headers())?;
        let bearer = bearer::token(request.headers());
        if let Some(bearer) = bearer {
            match self.gateway.authenticate_connection(bearer.to_owned(), client.clone()).await {
                Ok(caller) => incoming.abort_on(caller.lost, caller.holder),
                Err(refused) => return error_response(refused),
            }
        }
        let _slot = match incoming.holder() {
            Some(holder) => {
                Some(self.slots.acquire_transfer(holder, self.limits.transfers_per_holder)?)
            }
            None => None, // The gateway rejects anonymous callers.
        };
        let received = {
            let pieces = stream::unfold(&mut *incoming, async |incoming| {
                let piece = incoming.next().await?;
                Some((piece, incoming))
            });
            self.gateway.upload(order, bearer, client.clone(), pin!(pieces)).await
        };
        match received {
            Ok(received) => Ok(accepted(&received)),
            Err(refused) => {
                let mut response = error_response(refused)?;
                if incoming.abort_reason() == Some(UploadAbort::TooSlow) {
                    response.set_status(StatusCode::REQUEST_TIMEOUT);
                }
                Ok(response)
            }
        }
    }
}

impl<G: Gateway> poem::Endpoint for Upload<G> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        // `edge` and `server` insert these extensions before any route runs.
        let client =
            request.extensions().get::<Client>().cloned().ok_or_else(RequestError::internal)?;
        let deadline = request
            .extensions()
            .get::<Arc<ConnectionDeadline>>()
            .cloned()
            .ok_or_else(RequestError::internal)?;
        let body = request.take_body();
        let mut incoming = Incoming::new(body, deadline, &self.limits, self.shutdown.clone());
        let response = match self.respond(&request, &client, &mut incoming).await {
            Ok(response) => response,
            Err(error) => error.into_response(&client.request_id),
        };
        Ok(linger::hold_open(response, incoming, request.headers()))
    }
}

fn accepted(Received { id, rows }: &Received) -> Response {
    let body = json!({ "id": id, "rows": rows }).to_string();
    let response = Response::builder().status(StatusCode::ACCEPTED);
    response.content_type("application/json; charset=utf-8").body(body)
}

/// Rejects compressed files. Because nothing is decompressed, a small file cannot expand and fill the memory.
fn check_encoding(headers: &HeaderMap) -> Result<(), RequestError> {
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    if encodings.all(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Ok(());
    }
    let message = "The file must not be compressed: send it without Content-Encoding.";
    Err(RequestError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::Validation, message)
        .with_header(ACCEPT_ENCODING, HeaderValue::from_static("identity")))
}

/// Rejects a file by its `Content-Length` if that exceeds the limit. A file without the header is limited while
/// reading.
fn check_length(headers: &HeaderMap) -> Result<(), RequestError> {
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_none_or(|length: u64| length <= MAX_FILE_BYTES) {
        return Ok(());
    }
    let message = format!(
        "The file is larger than {} MiB: split it into several files, each with the header row.",
        MAX_FILE_BYTES / 1024 / 1024
    );
    Err(RequestError::new(StatusCode::PAYLOAD_TOO_LARGE, Code::Validation, message))
}
