//! `POST /graphql/stream`: Server-Sent Events, "distinct connections mode" of graphql-sse. One operation per request.
//!
//! HTTP request and parameters are checked as on `/graphql`. Errors of the GraphQL document and of its execution are
//! sent as events, as the protocol requires (an `EventSource` cannot read an error response). No queue is needed: an
//! answer is produced only when the client has read the previous answer. An idle stream sends a comment at intervals,
//! so that no proxy closes the connection.

use std::{io, net::IpAddr, sync::Arc};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, future::BoxFuture, stream};
use graphql::{AccessLoss, Answer, Client, ConnectedCaller, Error, ErrorCode, refused};
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, VARY},
};
use poem::{Body, Request, Response};
use tokio_util::sync::CancellationToken;

use crate::{
    answer, bearer, body,
    config::{Config, Limits},
    gateway::Gateway,
    media::Media,
    operation,
    params::Params,
    request_error::{Code, RequestError},
    socket::slots::{Slot, Slots},
};

const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");

/// Handler of `/graphql/stream`, POST only.
pub(crate) struct Streams<G> {
    gateway: Arc<G>,
    limits: Limits,
    slots: Slots,
    shutdown: CancellationToken,
}

impl<G: Gateway> Streams<G> {
    pub(crate) fn new(gateway: Arc<G>, config: &Config, shutdown: CancellationToken) -> Self {
        let slots = Slots::default();
        Self { gateway, limits: config.limits.clone(), slots, shutdown }
    }

    async fn respond(&self, request: &mut Request) -> Result<Response, RequestError> {
        if request.method() != Method::POST {
            return Err(RequestError::method_not_allowed("POST"));
        }
        // The body is read before any rejection, so that the client gets the response and no TCP reset: see `body`.
        let body = body::read(request.take_body(), self.limits.body_bytes).await;
        let client =
            request.extensions().get::<Client>().cloned().ok_or_else(RequestError::internal)?;
        if let Err(refused) = self.gateway.admit(&client).await {
            return answer::respond(refused, Media::GraphQl, &client.request_id);
        }
        if !accepts_events(request.headers()) {
            return Err(RequestError::new(
                StatusCode::NOT_ACCEPTABLE,
                Code::Validation,
                "This URL returns text/event-stream, which the Accept header does not allow.",
            ));
        }
        let body = body?;
        body::require_json(request.headers())?;
        let params = Params::from_body(&body)?;
        let bearer = bearer::token(request.headers()).map(ToOwned::to_owned);
        let caller = match &bearer {
            None => ConnectedCaller::anonymous(),
            Some(bearer) => {
                match self.gateway.authenticate_connection(bearer.clone(), client.clone()).await {
                    Ok(caller) => caller,
                    // An invalid bearer token is rejected here even for `login` and `refreshSession`, which ignore the
                    // token. Their clients can use `/graphql`.
                    Err(refused) => {
                        return answer::respond(refused, Media::GraphQl, &client.request_id);
                    }
                }
            }
        };
        let slots = self.slots(caller.holder.as_deref(), client.address)?;
        let time_limit = self.limits.request_timeout;
        let answers = operation::answers(&self.gateway, params, bearer, client, time_limit);
        let events = events(answers, caller.lost, slots);
        let shutdown_started = self.shutdown.clone().cancelled_owned();
        let events =
            with_comments(events, self.limits.sockets.keep_alive).take_until(shutdown_started);
        let body = Body::from_bytes_stream(events.map(Ok::<_, io::Error>));
        let mut response = Response::builder().body(body);
        response.headers_mut().insert(CONTENT_TYPE, EVENT_STREAM);
        // nginx would otherwise buffer events until its buffer is full.
        response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
        Ok(response)
    }

    /// Acquires the slots of a stream: one of the caller, or one of the address if the caller is anonymous.
    fn slots(&self, holder: Option<&str>, address: IpAddr) -> Result<Vec<Slot>, RequestError> {
        let limits = &self.limits.sockets;
        let limit = limits.streams_per_holder;
        let refused =
            |message| RequestError::new(StatusCode::TOO_MANY_REQUESTS, Code::RateLimited, message);
        match holder {
            Some(holder) => {
                let slot = self.slots.acquire(holder, limit).ok_or_else(|| {
                    refused(format!(
                        "You have {limit} streams open, which is the limit: close one first."
                    ))
                })?;
                Ok(vec![slot])
            }
            None => {
                self.slots.acquire_anonymous(address, limit, limits.anonymous).ok_or_else(|| {
                    let message =
                        "Too many streams without a token are open: close one, or send a token.";
                    refused(message.to_owned())
                })
            }
        }
    }
}

impl<G: Gateway> poem::Endpoint for Streams<G> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let mut response = self.respond(&mut request).await?;
        response.headers_mut().append(VARY, HeaderValue::from_static("accept"));
        Ok(response)
    }
}

const COMPLETE: &[u8] = b"event: complete\ndata:\n\n";

/// Converts answers into events, until the answers end or the caller loses access or permissions.
fn events(
    answers: impl Stream<Item = Answer> + Send + 'static,
    lost: BoxFuture<'static, AccessLoss>,
    slots: Vec<Slot>,
) -> impl Stream<Item = Bytes> + Send + 'static {
    stream::unfold(Some((answers.boxed(), lost, slots)), |open| async {
        let (mut answers, mut lost, slots) = open?;
        tokio::select! {
            biased;
            lost = &mut lost => {
                Some(([&answer_event(&loss_answer(lost))[..], COMPLETE].concat().into(), None))
            }
            answer = answers.next() => Some(match answer {
                Some(answer) => (answer_event(&answer), Some((answers, lost, slots))),
                None => (Bytes::from_static(COMPLETE), None),
            }),
        }
    })
}

/// Builds the last answer of a stream whose caller has lost access or permissions.
fn loss_answer(lost: AccessLoss) -> Answer {
    refused(&match lost {
        AccessLoss::Access => {
            Error::new(ErrorCode::Unauthenticated, "The session or key has ended: sign in again.")
        }
        AccessLoss::Permission => {
            Error::new(ErrorCode::Forbidden, "Your permissions have changed: subscribe again.")
        }
    })
}

fn answer_event(answer: &Answer) -> Bytes {
    #[derive(serde::Serialize)]
    struct Unexecuted<'a> {
        errors: &'a [async_graphql::ServerError],
    }
    let json = if answer.executed {
        serde_json::to_string(&answer.response)
    } else {
        serde_json::to_string(&Unexecuted { errors: &answer.response.errors })
    };
    match json {
        // serde_json escapes line breaks, so the answer fits on one `data:` line.
        Ok(json) => format!("event: next\ndata: {json}\n\n").into(),
        Err(error) => {
            tracing::error!(%error, "an answer cannot be serialized as JSON");
            Bytes::new()
        }
    }
}

/// Forwards the events, and inserts a comment after each `interval` without an event.
fn with_comments(
    events: impl Stream<Item = Bytes> + Send + 'static,
    interval: std::time::Duration,
) -> impl Stream<Item = Bytes> + Send + 'static {
    stream::unfold(Box::pin(events), move |mut events| async move {
        match tokio::time::timeout(interval, events.next()).await {
            Ok(event) => event.map(|event| (event, events)),
            Err(_elapsed) => Some((Bytes::from_static(b":\n\n"), events)),
        }
    })
}

/// Returns true if `Accept` allows `text/event-stream`, or is absent.
fn accepts_events(headers: &HeaderMap) -> bool {
    if !headers.contains_key(ACCEPT) {
        return true;
    }
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|range| range.split(';').next().unwrap_or_default().trim())
        .any(|range| {
            ["text/event-stream", "text/*", "*/*"]
                .iter()
                .any(|accepted| range.eq_ignore_ascii_case(accepted))
        })
}
