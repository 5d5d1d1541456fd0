//! One socket from `101` to its end: `graphql-transport-ws`, its limits and its deadlines, in one task.
//!
//! Must stay true: everything that could last without end has a deadline (init, pings, the close). Everything that
//! could grow has a limit (messages, operations, the queue). The loss of access or permissions is checked before
//! anything is written. Dropping the session drops its operations, and with them their work in the database.

use std::{collections::HashMap, pin::pin, sync::Arc};

use futures_util::{
    FutureExt, Stream, StreamExt,
    future::{self, BoxFuture, FusedFuture},
    stream::{self, AbortHandle, BoxStream, SelectAll, abortable},
};
use graphql::{Answer, Client, Error, ErrorCode, Lost, Recognised, refused};
use serde_json::{Map, Value};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout},
};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    close::Close,
    message::{self, Incoming},
    outbox::{Full, Outbox},
    slots::{Slot, Slots},
    wire::{self, Sink, Source},
};
use crate::{
    answer::{code, sign},
    bearer,
    config::Limits,
    gateway::Gateway,
    operation,
    params::Params,
};

/// Client and credentials as known from the handshake.
pub(super) struct Opening {
    pub(super) bearer: Option<String>,
    pub(super) client: Client,
}

/// Session of a socket that the handshake has accepted.
pub(super) struct Session<G> {
    gateway: Arc<G>,
    limits: Arc<Limits>,
    slots: Slots,
    opening: Opening,
}

/// Authentication state of the client.
enum AuthState {
    /// No `connection_init` yet; the instant is its deadline.
    Pending(Instant),
    /// The credentials of `connection_init` are being verified.
    Verifying(BoxFuture<'static, Result<Recognised, Answer>>),
    /// The client is authenticated or anonymous; operations run with this bearer.
    Authenticated { bearer: Option<String>, _slot: Option<Slot> },
}

/// Answers of all running operations, each with the operation's id; `None` is the end of an operation.
type Operations = SelectAll<BoxStream<'static, (String, Option<Answer>)>>;

/// End of a session without a close frame, because the client can no longer read it.
struct Disconnected;

impl<G: Gateway> Session<G> {
    pub(super) fn new(
        gateway: Arc<G>,
        limits: Arc<Limits>,
        slots: Slots,
        opening: Opening,
    ) -> Self {
        Self { gateway, limits, slots, opening }
    }

    /// Runs the session until the client leaves or the server has a reason to close.
    pub(super) async fn run(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send,
        stopping: &CancellationToken,
    ) {
        let limits = &self.limits.sockets;
        let (mut sink, mut source) = wire::open(stream, limits.message_bytes).await;
        let (address, request_id) = (self.opening.client.address, &self.opening.client.request_id);
        let (opened_at, close_timeout) = (Instant::now(), limits.close_timeout);
        metrics::gauge!("sentryops_sockets").increment(1.0);
        let mut protocol = Protocol::new(&self);
        let ended = protocol.run_loop(&mut sink, &mut source, stopping).await;
        let operations = protocol.operations_begun;
        drop(protocol);
        metrics::gauge!("sentryops_sockets").decrement(1.0);
        let code = match &ended {
            Ok(close) => close.code,
            Err(Disconnected) => 1006,
        };
        metrics::counter!("sentryops_sockets_closed_total", "code" => code.to_string())
            .increment(1);
        tracing::info!(
            socket.code = code,
            socket.operations = operations,
            socket.seconds = opened_at.elapsed().as_secs(),
            request.id = %request_id,
            client.address = %address,
            "a socket was closed with {code} after {operations} operations",
        );
        if let Ok(close) = ended {
            // A client that does not read the close frame in time does not get it.
            let _ = timeout(close_timeout, wire::close(sink, source, &close)).await;
        }
    }
}

/// State of the protocol on one socket.
struct Protocol<'a, G> {
    session: &'a Session<G>,
    auth: AuthState,
    lost: future::Fuse<BoxFuture<'static, Lost>>,
    operations: Operations,
    running: HashMap<String, AbortHandle>,
    operations_begun: u64,
    is_alive: bool,
}

impl<'a, G: Gateway> Protocol<'a, G> {
    fn new(session: &'a Session<G>) -> Self {
        let due = Instant::now() + session.limits.sockets.init_timeout;
        Self {
            session,
            auth: AuthState::Pending(due),
            lost: future::Fuse::terminated(),
            operations: SelectAll::new(),
            running: HashMap::new(),
            operations_begun: 0,
            is_alive: true,
        }
    }

    async fn run_loop<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        sink: &mut Sink<S>,
        source: &mut Source<S>,
        stopping: &CancellationToken,
    ) -> Result<Close, Disconnected> {
        let limits = &self.session.limits.sockets;
        let (outbox, queue) = Outbox::new(limits.queue_messages, limits.queue_bytes);
        let mut writing = pin!(wire::write(sink, queue));
        let mut pings = interval_at(Instant::now() + limits.ping, limits.ping);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = match &self.auth {
                AuthState::Pending(due) => Some(*due),
                AuthState::Verifying(_) | AuthState::Authenticated { .. } => None,
            };
            let step_result = tokio::select! {
                biased;
                () = stopping.cancelled() => Err(Close::GOING_AWAY),
                lost = &mut self.lost, if !self.lost.is_terminated() => Err(match lost {
                    Lost::Access => Close::BAD_TOKEN,
                    Lost::Rights => Close::FEWER_RIGHTS,
                }),
                () = &mut writing => return Err(Disconnected),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    Err(Close::NO_INIT)
                }
                _ = pings.tick() => {
                    if !std::mem::replace(&mut self.is_alive, false) {
                        return Err(Disconnected);
                    }
                    outbox.push(Message::Ping(tungstenite::Bytes::new())).map_err(too_slow)
                }
                verification = verification(&mut self.auth) => self.on_verified(verification, &outbox),
                Some((id, answer)) = self.operations.next(), if !self.operations.is_empty() => {
                    self.step(&id, answer, &outbox)
                }
                message = source.next() => match message {
                    None => return Err(Disconnected),
                    Some(Err(error)) => Err(Close::of(&error).ok_or(Disconnected)?),
                    Some(Ok(message)) => {
                        self.is_alive = true;
                        match message {
                            Message::Text(text) => self.handle_message(&text, &outbox),
                            Message::Binary(_) => Err(Close::invalid("Invalid message: not text")),
                            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(()),
                            // tungstenite answers the close frame during the next read.
                            Message::Close(_) => {
                                let _ = timeout(limits.close_timeout, source.next()).await;
                                return Err(Disconnected);
                            }
                        }
                    }
                },
            };
            if let Err(close) = step_result {
                return Ok(close);
            }
        }
    }

    fn handle_message(&mut self, text: &str, outbox: &Outbox) -> Result<(), Close> {
        match Incoming::parse(text)? {
            Incoming::Init(payload) => self.init(&payload),
            Incoming::Ping(payload) => outbox.push(message::pong(payload)).map_err(too_slow),
            Incoming::Pong => Ok(()),
            Incoming::Subscribe { id, params } => self.subscribe(id, params, outbox),
            Incoming::Complete { id } => {
                // The operation may have ended at the same moment.
                if let Some(operation) = self.running.remove(&id) {
                    operation.abort();
                }
                Ok(())
            }
        }
    }

    /// Starts to verify the credentials. They come from the payload, because browsers cannot set headers on a
    /// WebSocket, or from the handshake.
    fn init(&mut self, payload: &Map<String, Value>) -> Result<(), Close> {
        if !matches!(self.auth, AuthState::Pending(_)) {
            return Err(Close::SECOND_INIT);
        }
        let Opening { bearer, client } = &self.session.opening;
        let given = match (payload.get("Authorization"), payload.get("authorization")) {
            (None | Some(Value::Null), None | Some(Value::Null)) => bearer.clone(),
            (Some(Value::String(header)), None) | (None, Some(Value::String(header))) => {
                Some(bearer::parse(header).unwrap_or_default().to_owned())
            }
            _ => return Err(Close::FORBIDDEN),
        };
        self.auth = AuthState::Verifying(match given {
            // The header is present but not a bearer.
            Some(bearer) if bearer.is_empty() => return Err(Close::FORBIDDEN),
            Some(bearer) => {
                let (gateway, client) = (Arc::clone(&self.session.gateway), client.clone());
                async move { gateway.recognise(bearer, client).await }.boxed()
            }
            None => future::ready(Ok(Recognised::nobody())).boxed(),
        });
        Ok(())
    }

    fn on_verified(
        &mut self,
        verification: Result<Recognised, Answer>,
        outbox: &Outbox,
    ) -> Result<(), Close> {
        let recognised = verification.map_err(|refused| {
            match refused.response.errors.first().and_then(code) {
                Some("UNAUTHENTICATED") => Close::BAD_TOKEN,
                Some("FORBIDDEN") => Close::FORBIDDEN,
                _ => Close::UNAVAILABLE,
            }
        })?;
        let Recognised { bearer, holder, lost } = recognised;
        let slot = match holder {
            None => None,
            Some(holder) => {
                let most = self.session.limits.sockets.per_holder;
                Some(self.session.slots.enter(&holder, most).ok_or(Close::TOO_MANY)?)
            }
        };
        self.lost = lost.fuse();
        self.auth = AuthState::Authenticated { bearer, _slot: slot };
        outbox.push(message::ack()).map_err(too_slow)
    }

    fn subscribe(&mut self, id: String, params: Params, outbox: &Outbox) -> Result<(), Close> {
        let AuthState::Authenticated { bearer, .. } = &self.auth else {
            return Err(Close::TOO_EARLY);
        };
        if self.running.contains_key(&id) {
            return Err(Close::duplicate(&id));
        }
        let client = Client {
            request_id: Uuid::now_v7().to_string(),
            ..self.session.opening.client.clone()
        };
        let most = self.session.limits.sockets.operations;
        if self.running.len() >= most {
            let message = format!(
                "A socket runs at most {most} operations at the same time: complete one first."
            );
            let mut refused = refused(&Error::new(ErrorCode::RateLimited, message));
            sign(&mut refused, &client.request_id);
            return self.send_answer(&id, &refused, outbox).map(drop);
        }
        self.operations_begun += 1;
        let (gateway, time) = (&self.session.gateway, self.session.limits.request_timeout);
        let answers = operation::answers(gateway, params, bearer.clone(), client, time);
        let (steps, handle) = abortable(steps(id.clone(), answers));
        self.running.insert(id, handle);
        self.operations.push(steps.boxed());
        Ok(())
    }

    fn step(&mut self, id: &str, answer: Option<Answer>, outbox: &Outbox) -> Result<(), Close> {
        let Some(answer) = answer else {
            self.running.remove(id);
            return outbox.push(message::complete(id)).map_err(too_slow);
        };
        if !self.send_answer(id, &answer, outbox)?
            && let Some(operation) = self.running.remove(id)
        {
            operation.abort();
        }
        Ok(())
    }

    /// Queues an answer. Returns true if the operation may send more answers.
    fn send_answer(&self, id: &str, answer: &Answer, outbox: &Outbox) -> Result<bool, Close> {
        let most = self.session.limits.sockets.queue_bytes;
        let (text, may_continue) = match message::answer(id, answer) {
            Ok(text) if text.len() <= most => (text, answer.executed),
            Ok(_) => (too_large(id, most), false),
            Err(error) => {
                tracing::error!(%error, "an answer cannot be serialized as JSON");
                return Err(Close::UNAVAILABLE);
            }
        };
        outbox.push(text).map_err(too_slow).map(|()| may_continue)
    }
}

/// Waits for the pending verification; never resolves if there is none.
async fn verification(auth: &mut AuthState) -> Result<Recognised, Answer> {
    match auth {
        AuthState::Verifying(verification) => verification.await,
        AuthState::Pending(_) | AuthState::Authenticated { .. } => future::pending().await,
    }
}

/// Returns an operation's answers followed by `None` as its end, each with the operation's id.
fn steps(
    id: String,
    answers: impl Stream<Item = Answer> + Send + 'static,
) -> impl Stream<Item = (String, Option<Answer>)> + Send + 'static {
    let end = stream::once(future::ready(None));
    answers.map(Some).chain(end).map(move |step| (id.clone(), step))
}

fn too_slow(_: Full) -> Close {
    Close::SLOW
}

fn too_large(id: &str, most: usize) -> String {
    let message =
        format!("The answer is larger than {most} bytes: request less data, or use HTTP.");
    let refused = refused(&Error::new(ErrorCode::QueryTooComplex, message));
    message::answer(id, &refused).expect("a fixed error message serializes as JSON")
}
