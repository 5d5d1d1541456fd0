//! `POST /import/assets` and `/import/dependencies`: a file, streamed. (`upload/order`: what its URL says; `upload/incoming`: its
//! bytes; `upload/linger`: refusing while a client still sends.)
//!
//! The one route without a deadline as a whole: 512 MiB take as long as the line takes. In its place the client must make
//! progress, and the session must live. What is refused is refused before the body is asked for, so a client that sends
//! `Expect: 100-continue` (curl does, from 1 MiB on) has not sent it.

use std::{pin::pin, sync::Arc};

use domain::inventory::import::{ImportKind, cut::FILE_BYTES};
use futures_util::stream;
use graphql::{BrokenOff, Client, Received};
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
    connection::Pulse,
    gateway::Gateway,
    refusal::{Code, Refusal},
    socket::places::Places,
};
use incoming::Incoming;

mod incoming;
mod linger;
mod order;

/// One of the two routes.
pub(crate) struct Upload<G> {
    kind: ImportKind,
    gateway: Arc<G>,
    limits: Limits,
    places: Places,
    stopping: CancellationToken,
}

/// Where files come in.
pub(crate) const ROUTES: [(&str, ImportKind); 2] =
    [("/import/assets", ImportKind::Assets), ("/import/dependencies", ImportKind::Dependencies)];

/// Whether a request to this path may take as long as it goes on.
pub(crate) fn is_endless(path: &str) -> bool {
    ROUTES.iter().any(|(route, _)| *route == path)
}

impl<G: Gateway> Upload<G> {
    pub(crate) fn new(
        kind: ImportKind,
        gateway: Arc<G>,
        limits: &Limits,
        places: Places,
        stopping: CancellationToken,
    ) -> Self {
        Self { kind, gateway, limits: limits.clone(), places, stopping }
    }

    async fn answer(
        &self,
        request: &Request,
        client: &Client,
        incoming: &mut Incoming,
    ) -> Result<Response, Refusal> {
        if request.method() != Method::POST {
            return Err(Refusal::method("POST"));
        }
        let refuse = |answer| answer::refuse(answer, &client.request_id);
        let order = match order::read(self.kind, request.uri(), request.headers()) {
            Ok(order) => order,
            Err(order::Wrong::Refused(refusal)) => return Err(refusal),
            Err(order::Wrong::Parameters(error)) => return refuse(graphql::refused(&error)),
        };
        check_encoding(request.headers())?;
        check_length(request.headers())?;
        let bearer = bearer::token(request.headers());
        if let Some(bearer) = bearer {
            match self.gateway.recognise(bearer.to_owned(), client.clone()).await {
                Ok(recognised) => incoming.watch(recognised.lost, recognised.holder),
                Err(refused) => return refuse(refused),
            }
        }
        let _place = match incoming.holder() {
            Some(holder) => Some(self.places.transfer(holder, self.limits.transfers_per_holder)?),
            None => None, // The gateway refuses it.
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
                let mut response = refuse(refused)?;
                if incoming.broken() == Some(BrokenOff::Slow) {
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
        // `edge` and `server` put them there before any route.
        let client = request.extensions().get::<Client>().cloned().ok_or_else(Refusal::internal)?;
        let pulse =
            request.extensions().get::<Arc<Pulse>>().cloned().ok_or_else(Refusal::internal)?;
        let body = request.take_body();
        let mut incoming = Incoming::new(body, pulse, &self.limits, self.stopping.clone());
        let response = match self.answer(&request, &client, &mut incoming).await {
            Ok(response) => response,
            Err(refusal) => refusal.into_response(&client.request_id),
        };
        Ok(linger::until_sent(response, incoming, request.headers()))
    }
}

fn accepted(Received { id, rows }: &Received) -> Response {
    let body = json!({ "id": id, "rows": rows }).to_string();
    let response = Response::builder().status(StatusCode::ACCEPTED);
    response.content_type("application/json; charset=utf-8").body(body)
}

/// Nothing is unpacked here: what unpacks to a thousand times its size is not our memory's problem.
fn check_encoding(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    if encodings.all(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Ok(());
    }
    let message = "The file must not be compressed: send it as it is.";
    Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::Validation, message)
        .with_header(ACCEPT_ENCODING, HeaderValue::from_static("identity")))
}

/// What says that it is too large is not read at all.
fn check_length(headers: &HeaderMap) -> Result<(), Refusal> {
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_none_or(|length: u64| length <= FILE_BYTES) {
        return Ok(());
    }
    let message = format!(
        "The file is larger than {} MiB: send it in several files, each with the header.",
        FILE_BYTES / 1024 / 1024
    );
    Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, Code::Validation, message))
}
