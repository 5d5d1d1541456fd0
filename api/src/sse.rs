//! `POST /graphql/stream`: Server-Sent Events, "distinct connections mode" of graphql-sse. One operation a request.
//!
//! The request is judged as on `/graphql`; from the first byte of the document on, what is wrong comes as an event, as
//! the protocol asks (an `EventSource` cannot read a refusal). There is no queue: the next answer is made when the client
//! has taken the last. A silent stream says a comment from time to time, so that nobody in between closes it.

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
    refusal::{Code, Refusal},
    socket::places::{Place, Places},
};

const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");

/// `/graphql/stream`.
pub(crate) struct Streams<G> {
    gateway: Arc<G>,
    limits: Limits,
    places: Places,
    stopping: CancellationToken,
}

impl<G: Gateway> Streams<G> {
    pub(crate) fn new(gateway: Arc<G>, config: &Config, stopping: CancellationToken) -> Self {
        let places = Places::default();
        Self { gateway, limits: config.limits.clone(), places, stopping }
    }

    async fn answer(&self, request: &mut Request) -> Result<Response, Refusal> {
        if request.method() != Method::POST {
            return Err(Refusal::method("POST"));
        }
        // Read before anything is refused: see `body` on resets.
        let body = body::read(request.take_body(), self.limits.body_bytes).await;
        if !accepts_events(request.headers()) {
            return Err(Refusal::new(
                StatusCode::NOT_ACCEPTABLE,
                Code::Validation,
                "Answers here are text/event-stream; Accept does not allow it.",
            ));
        }
        let body = body?;
        body::require_json(request.headers())?;
        let params = Params::from_body(&body)?;
        let client = request.extensions().get::<Client>().cloned().ok_or_else(Refusal::internal)?;
        let bearer = bearer::token(request.headers()).map(ToOwned::to_owned);
        let recognised = match &bearer {
            None => Recognised::nobody(),
            Some(bearer) => {
                match self.gateway.recognise(bearer.clone(), client.clone()).await {
                    Ok(recognised) => recognised,
                    // `login` and `refreshSession` ignore a bearer: but who wants those has `/graphql`.
                    Err(refused) => {
                        return answer::respond(refused, Media::GraphQl, &client.request_id);
                    }
                }
            }
        };
        let place = match &recognised.holder {
            None => None,
            Some(holder) => Some(self.place(holder)?),
        };
        let time = self.limits.request_timeout;
        let answers = operation::answers(&self.gateway, params, bearer, client, time);
        let events = events(answers, recognised.lost, place);
        let stopped = self.stopping.clone().cancelled_owned();
        let events = with_comments(events, self.limits.sockets.keep_alive).take_until(stopped);
        let body = Body::from_bytes_stream(events.map(Ok::<_, io::Error>));
        let mut response = Response::builder().body(body);
        response.headers_mut().insert(CONTENT_TYPE, EVENT_STREAM);
        // nginx would otherwise hold events back until it has a bufferful.
        response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
        Ok(response)
    }

    fn place(&self, holder: &str) -> Result<Place, Refusal> {
        let most = self.limits.sockets.streams_per_holder;
        self.places.enter(holder, most).ok_or_else(|| {
            Refusal::new(
                StatusCode::TOO_MANY_REQUESTS,
                Code::RateLimited,
                format!("You have {most} streams open: end another first."),
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

/// Answers as events, until they end or the right to them does.
fn events(
    answers: impl Stream<Item = Answer> + Send + 'static,
    lost: BoxFuture<'static, Lost>,
    place: Option<Place>,
) -> impl Stream<Item = Bytes> + Send + 'static {
    stream::unfold(Some((answers.boxed(), lost, place)), |open| async {
        let (mut answers, mut lost, place) = open?;
        tokio::select! {
            biased;
            lost = &mut lost => {
                Some(([&answer_event(&farewell(lost))[..], COMPLETE].concat().into(), None))
            }
            answer = answers.next() => Some(match answer {
                Some(answer) => (answer_event(&answer), Some((answers, lost, place))),
                None => (Bytes::from_static(COMPLETE), None),
            }),
        }
    })
}

/// Why nothing more is sent.
fn farewell(lost: Lost) -> Answer {
    refused(&match lost {
        Lost::Access => {
            Error::new(ErrorCode::Unauthenticated, "The session or key has ended: sign in again.")
        }
        Lost::Rights => Error::new(ErrorCode::Forbidden, "Your rights have changed: ask again."),
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
        // JSON has no line breaks of its own.
        Ok(json) => format!("event: next\ndata: {json}\n\n").into(),
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written as JSON");
            Bytes::new()
        }
    }
}

/// The same, and a comment whenever nothing has been said for so long.
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

/// Whether the client takes what comes here; who says nothing does.
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
