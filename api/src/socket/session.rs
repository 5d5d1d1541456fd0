//! Session of one socket, from the response `101` to the close: the protocol `graphql-transport-ws` with its limits and
//! deadlines, in one task.
//!
//! Must stay true: each wait for the client has a deadline (`connection_init`, pings, the close). Each resource that a
//! client can use up has a limit (size of messages, operations, the queue). The loss of access or permissions is
//! checked before a message is written. Dropping the session drops its operations, which cancels their work in the
//! database.

use std::{collections::HashMap, pin::pin, sync::Arc};

use futures_util::{
    FutureExt, Stream, StreamExt,
    future::{self, BoxFuture, FusedFuture},
    stream::{self, AbortHandle, BoxStream, SelectAll, abortable},
};
use graphql::{AccessLoss, Answer, Client, ConnectedCaller, Error, ErrorCode, refused};
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
    answer::{add_request_id, code},
    bearer,
    config::Limits,
    gateway::Gateway,
    operation,
    params::Params,
};

/// Client and bearer token from the HTTP request of the handshake.
pub(super) struct Handshake {
    pub(super) bearer: Option<String>,
    pub(super) client: Client,
}

/// Session of a socket, after a successful handshake.
pub(super) struct Session<G> {
    gateway: Arc<G>,
    limits: Arc<Limits>,
    slots: Slots,
    handshake: Handshake,
}

/// Authentication state of the client.
enum AuthState {
    /// `connection_init` has not arrived; the value is the deadline for its arrival.
    Pending(Instant),
    /// The credentials of `connection_init` are being verified.
    Verifying(BoxFuture<'static, Result<ConnectedCaller, Answer>>),
    /// The client is authenticated or anonymous; operations run with this bearer token.
    Authenticated { bearer: Option<String>, _slots: Vec<Slot> },
}

/// Answers of all running operations, each with the id of its operation; `None` marks the end of an operation.
type Operations = SelectAll<BoxStream<'static, (String, Option<Answer>)>>;

/// End of a session without a close frame, because the client has disconnected.
struct Disconnected;

impl<G: Gateway> Session<G> {
    pub(super) fn new(
        gateway: Arc<G>,
        limits: Arc<Limits>,
        slots: Slots,
        handshake: Handshake,
    ) -> Self {
        Self { gateway, limits, slots, handshake }
    }

    /// Runs the session until the client disconnects or the server closes the socket.
    pub(super) async fn run(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send,
        shutdown: &CancellationToken,
    ) {
        let limits = &self.limits.sockets;
        let (mut sink, mut source) = wire::open(stream, limits.message_bytes).await;
        let (address, request_id) =
            (self.handshake.client.address, &self.handshake.client.request_id);
        let (opened_at, close_timeout) = (Instant::now(), limits.close_timeout);
        metrics::gauge!("sentryops_sockets").increment(1.0);
        let mut protocol = Protocol::new(&self);
        let result = protocol.run_loop(&mut sink, &mut source, shutdown).await;
        let operations = protocol.operations_begun;
        drop(protocol);
        metrics::gauge!("sentryops_sockets").decrement(1.0);
        let code = match &result {
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
        if let Ok(close) = result {
            // The result is ignored: a client that does not read in time does not receive the close frame.
            let _ = timeout(close_timeout, wire::close(sink, source, &close)).await;
        }
    }
}

/// State of the protocol on one socket.
struct Protocol<'a, G> {
    session: &'a Session<G>,
    auth: AuthState,
    lost: future::Fuse<BoxFuture<'static, AccessLoss>>,
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
        shutdown: &CancellationToken,
    ) -> Result<Close, Disconnected> {
        let limits = &self.session.limits.sockets;
        let (outbox, queue) = Outbox::new(limits.queue_messages, limits.queue_bytes);
        let mut writer = pin!(wire::write(sink, queue));
        let mut pings = interval_at(Instant::now() + limits.ping, limits.ping);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = match &self.auth {
                AuthState::Pending(due) => Some(*due),
                AuthState::Verifying(_) | AuthState::Authenticated { .. } => None,
            };
            let step_result = tokio::select! {
                biased;
                () = shutdown.cancelled() => Err(Close::GOING_AWAY),
                lost = &mut self.lost, if !self.lost.is_terminated() => Err(match lost {
                    AccessLoss::Access => Close::INVALID_TOKEN,
                    AccessLoss::Permission => Close::PERMISSIONS_CHANGED,
                }),
                () = &mut writer => return Err(Disconnected),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    Err(Close::INIT_TIMEOUT)
                }
                _ = pings.tick() => {
                    if !std::mem::replace(&mut self.is_alive, false) {
                        return Err(Disconnected);
                    }
                    outbox.push(Message::Ping(tungstenite::Bytes::new())).map_err(too_slow)
                }
                verification = verification(&mut self.auth) => self.on_verified(verification, &outbox),
                Some((id, answer)) = self.operations.next(), if !self.operations.is_empty() => {
                    self.handle_answer(&id, answer, &outbox)
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
                // The operation is absent if it has just ended.
                if let Some(operation) = self.running.remove(&id) {
                    operation.abort();
                }
                Ok(())
            }
        }
    }

    /// Starts to verify the credentials. The payload takes precedence over the header of the handshake, which browsers
    /// cannot set.
    fn init(&mut self, payload: &Map<String, Value>) -> Result<(), Close> {
        if !matches!(self.auth, AuthState::Pending(_)) {
            return Err(Close::SECOND_INIT);
        }
        let Handshake { bearer, client } = &self.session.handshake;
        let token = match (payload.get("Authorization"), payload.get("authorization")) {
            (None | Some(Value::Null), None | Some(Value::Null)) => bearer.clone(),
            (Some(Value::String(header)), None) | (None, Some(Value::String(header))) => {
                Some(bearer::parse(header).unwrap_or_default().to_owned())
            }
            _ => return Err(Close::FORBIDDEN),
        };
        self.auth = AuthState::Verifying(match token {
            // The header is present, but is not a valid bearer token.
            Some(bearer) if bearer.is_empty() => return Err(Close::FORBIDDEN),
            Some(bearer) => {
                let (gateway, client) = (Arc::clone(&self.session.gateway), client.clone());
                let verified = async move {
                    gateway.admit(&client).await?;
                    gateway.authenticate_connection(bearer, client).await
                };
                verified.boxed()
            }
            None => future::ready(Ok(ConnectedCaller::anonymous())).boxed(),
        });
        Ok(())
    }

    fn on_verified(
        &mut self,
        verification: Result<ConnectedCaller, Answer>,
        outbox: &Outbox,
    ) -> Result<(), Close> {
        let caller = verification.map_err(|refused| {
            match refused.response.errors.first().and_then(code) {
                Some("UNAUTHENTICATED") => Close::INVALID_TOKEN,
                Some("FORBIDDEN") => Close::FORBIDDEN,
                _ => Close::UNAVAILABLE,
            }
        })?;
        let ConnectedCaller { bearer, holder, lost } = caller;
        let (slots, limits) = (&self.session.slots, &self.session.limits.sockets);
        let acquired = if let Some(holder) = holder {
            slots.acquire(&holder, limits.per_holder).map(|slot| vec![slot])
        } else {
            let address = self.session.handshake.client.address;
            slots.acquire_anonymous(address, limits.per_holder, limits.anonymous)
        };
        let slots = acquired.ok_or(Close::TOO_MANY)?;
        self.lost = lost.fuse();
        self.auth = AuthState::Authenticated { bearer, _slots: slots };
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
            ..self.session.handshake.client.clone()
        };
        let limit = self.session.limits.sockets.operations;
        if self.running.len() >= limit {
            let message = format!(
                "A socket runs at most {limit} operations at the same time: complete one first."
            );
            let mut refused = refused(&Error::new(ErrorCode::RateLimited, message));
            add_request_id(&mut refused, &client.request_id);
            return self.send_answer(&id, &refused, outbox).map(drop);
        }
        self.operations_begun += 1;
        let (gateway, time_limit) = (&self.session.gateway, self.session.limits.request_timeout);
        let answers =
            operation::admitted_answers(gateway, params, bearer.clone(), client, time_limit);
        let (steps, handle) = abortable(steps(id.clone(), answers));
        self.running.insert(id, handle);
        self.operations.push(steps.boxed());
        Ok(())
    }

    fn handle_answer(
        &mut self,
        id: &str,
        answer: Option<Answer>,
        outbox: &Outbox,
    ) -> Result<(), Close> {
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

    /// Queues an answer. Returns true if the operation can send further answers.
    fn send_answer(&self, id: &str, answer: &Answer, outbox: &Outbox) -> Result<bool, Close> {
        let limit = self.session.limits.sockets.queue_bytes;
        let (text, may_continue) = match message::answer(id, answer) {
            Ok(text) if text.len() <= limit => (text, answer.executed),
            Ok(_) => (too_large(id, limit), false),
            Err(error) => {
                tracing::error!(%error, "an answer cannot be serialized as JSON");
                return Err(Close::UNAVAILABLE);
            }
        };
        outbox.push(text).map_err(too_slow).map(|()| may_continue)
    }
}

/// Waits for the result of the verification; never resolves in any other authentication state.
async fn verification(auth: &mut AuthState) -> Result<ConnectedCaller, Answer> {
    match auth {
        AuthState::Verifying(verification) => verification.await,
        AuthState::Pending(_) | AuthState::Authenticated { .. } => future::pending().await,
    }
}

/// Streams the answers of an operation and a final `None`, each with the id of the operation.
fn steps(
    id: String,
    answers: impl Stream<Item = Answer> + Send + 'static,
) -> impl Stream<Item = (String, Option<Answer>)> + Send + 'static {
    let end = stream::once(future::ready(None));
    answers.map(Some).chain(end).map(move |step| (id.clone(), step))
}

fn too_slow(_: Full) -> Close {
    Close::TOO_SLOW
}

fn too_large(id: &str, limit: usize) -> String {
    let message =
        format!("The answer is larger than {limit} bytes: request less data, or use HTTP.");
    let refused = refused(&Error::new(ErrorCode::QueryTooComplex, message));
    message::answer(id, &refused).expect("a fixed error message serializes as JSON")
}
