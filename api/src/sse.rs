//! `POST /graphql/stream`: Server-Sent Events, "distinct connections mode" of graphql-sse. One operation per request.
//!
//! The request is checked as on `/graphql`. Errors in the document and later ones are sent as events, as the protocol
//! requires (an `EventSource` cannot read an error response). There is no queue: the next answer is produced when the
//! client has read the last one. An idle stream sends a comment at intervals, so that no proxy closes it.

use std::{io, sync::Arc};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, future::BoxFuture, stream};
use graphql::{Answer, Client, Error, ErrorCode, Lost, Recognised, refused};
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
    stopping: CancellationToken,
}

impl<G: Gateway> Streams<G> {
    pub(crate) fn new(gateway: Arc<G>, config: &Config, stopping: CancellationToken) -> Self {
        let slots = Slots::default();
        Self { gateway, limits: config.limits.clone(), slots, stopping }
    }

    async fn answer(&self, request: &mut Request) -> Result<Response, RequestError> {
        if request.method() != Method::POST {
            return Err(RequestError::method("POST"));
        }
        // The body is read before any rejection; `body` explains why (resets).
        let body = body::read(request.take_body(), self.limits.body_bytes).await;
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
        let client =
            request.extensions().get::<Client>().cloned().ok_or_else(RequestError::internal)?;
        let bearer = bearer::token(request.headers()).map(ToOwned::to_owned);
        let recognised = match &bearer {
            None => Recognised::nobody(),
            Some(bearer) => {
                match self.gateway.recognise(bearer.clone(), client.clone()).await {
                    Ok(recognised) => recognised,
                    // Only `login` and `refreshSession` ignore a bad bearer; their clients can use `/graphql`.
                    Err(refused) => {
                        return answer::respond(refused, Media::GraphQl, &client.request_id);
                    }
                }
            }
        };
        let slot = match &recognised.holder {
            None => None,
            Some(holder) => Some(self.slot(holder)?),
        };
        let time = self.limits.request_timeout;
        let answers = operation::answers(&self.gateway, params, bearer, client, time);
        let events = events(answers, recognised.lost, slot);
        let stopped = self.stopping.clone().cancelled_owned();
        let events = with_comments(events, self.limits.sockets.keep_alive).take_until(stopped);
        let body = Body::from_bytes_stream(events.map(Ok::<_, io::Error>));
        let mut response = Response::builder().body(body);
        response.headers_mut().insert(CONTENT_TYPE, EVENT_STREAM);
        // nginx would otherwise buffer events until its buffer is full.
        response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
        Ok(response)
    }

    fn slot(&self, holder: &str) -> Result<Slot, RequestError> {
        let most = self.limits.sockets.streams_per_holder;
        self.slots.enter(holder, most).ok_or_else(|| {
            RequestError::new(
                StatusCode::TOO_MANY_REQUESTS,
                Code::RateLimited,
                format!("You have {most} streams open, which is the limit: close one first."),
            )
        })
    }
}

impl<G: Gateway> poem::Endpoint for Streams<G> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let mut response = self.answer(&mut request).await?;
        response.headers_mut().append(VARY, HeaderValue::from_static("accept"));
        Ok(response)
    }
}

const COMPLETE: &[u8] = b"event: complete\ndata:\n\n";

/// Turns answers into events, until the answers end or the caller loses access or permissions.
fn events(
    answers: impl Stream<Item = Answer> + Send + 'static,
    lost: BoxFuture<'static, Lost>,
    slot: Option<Slot>,
) -> impl Stream<Item = Bytes> + Send + 'static {
    stream::unfold(Some((answers.boxed(), lost, slot)), |open| async {
        let (mut answers, mut lost, slot) = open?;
        tokio::select! {
            biased;
            lost = &mut lost => {
                Some(([&answer_event(&loss_answer(lost))[..], COMPLETE].concat().into(), None))
            }
            answer = answers.next() => Some(match answer {
                Some(answer) => (answer_event(&answer), Some((answers, lost, slot))),
                None => (Bytes::from_static(COMPLETE), None),
            }),
        }
    })
}

/// Builds the last event of a stream that ends because of `lost`.
fn loss_answer(lost: Lost) -> Answer {
    refused(&match lost {
        Lost::Access => {
            Error::new(ErrorCode::Unauthenticated, "The session or key has ended: sign in again.")
        }
        Lost::Rights => {
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
        // serde_json escapes line breaks, so one `data:` line holds the whole answer.
        Ok(json) => format!("event: next\ndata: {json}\n\n").into(),
        Err(error) => {
            tracing::error!(%error, "an answer cannot be serialized as JSON");
            Bytes::new()
        }
    }
}

/// Passes events on, and inserts a comment whenever none has come for `every`.
fn with_comments(
    events: impl Stream<Item = Bytes> + Send + 'static,
    every: std::time::Duration,
) -> impl Stream<Item = Bytes> + Send + 'static {
    stream::unfold(Box::pin(events), move |mut events| async move {
        match tokio::time::timeout(every, events.next()).await {
            Ok(event) => event.map(|event| (event, events)),
            Err(_silence) => Some((Bytes::from_static(b":\n\n"), events)),
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
            ["text/event-stream", "text/*", "*/*"].iter().any(|own| range.eq_ignore_ascii_case(own))
        })
}
