//! Deadlines of a connection: a `TcpStream` with one timer that is always armed.
//!
//! hyper's header timeout also ends idle keep-alive connections, and does not notice stalled writes. poem's idle
//! timeout restarts at every byte, which allows slowloris attacks. Therefore this wrapper, which sees the bytes of both
//! directions, enforces the deadlines. The HTTP service reports when the head of a request is complete and when the
//! response begins, so no bytes are parsed twice.
//!
//! | phase | deadline | the phase ends with |
//! |---|---|---|
//! | `Head` | `head_timeout` after connecting, or after the first byte of a request | the complete head |
//! | `Request` | `request_timeout` + `GRACE` after the head | the service's response |
//! | `Receiving` (upload) | `idle_timeout` + `request_timeout` + `GRACE` after each piece | the service's response |
//! | `Open` (response, then idle) | `idle_timeout` after the last byte written | the first byte of the next request |
//! | `Upgraded` (WebSocket) | `idle_timeout` after the last byte in either direction | the end of the connection |
//!
//! In `Receiving`, `upload::incoming` also enforces a stricter deadline: a minimum rate of received bytes.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use http::StatusCode;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep},
};
use uuid::Uuid;

use crate::{config::Limits, headers::ResponseHeaders, listener::ConnectionSlot};

/// Extra time after `request_timeout`, in which `edge` can send a 504. The connection is closed only if no response has
/// begun by then.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Head,
    Request,
    Receiving,
    Open,
    Upgraded,
}

/// Phase of a connection, with the deadline of that phase. Shared by [`Connection`] and the HTTP service.
pub(crate) struct ConnectionDeadline {
    limits: Limits,
    state: Mutex<(Phase, Instant)>,
}

impl ConnectionDeadline {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        let due = Instant::now() + limits.head_timeout;
        Arc::new(Self { limits: limits.clone(), state: Mutex::new((Phase::Head, due)) })
    }

    /// Records that the head of a request is complete and the service was called.
    pub(crate) fn on_request(&self) {
        self.enter(Phase::Request, self.limits.request_timeout + GRACE);
    }

    /// Records that an upload is in progress: a piece is awaited or has arrived.
    pub(crate) fn on_upload(&self) {
        self.enter(
            Phase::Receiving,
            self.limits.idle_timeout + self.limits.request_timeout + GRACE,
        );
    }

    /// Records that the service has returned a response, whose bytes are not written yet.
    pub(crate) fn on_response(&self, status: StatusCode) {
        let is_upgraded = status == StatusCode::SWITCHING_PROTOCOLS;
        let phase = if is_upgraded { Phase::Upgraded } else { Phase::Open };
        self.enter(phase, self.limits.idle_timeout);
    }

    fn on_read(&self) {
        match self.phase() {
            Phase::Open => self.enter(Phase::Head, self.limits.head_timeout),
            Phase::Upgraded => self.enter(Phase::Upgraded, self.limits.idle_timeout),
            // The bytes belong to the same head or body, and do not extend its deadline.
            Phase::Head | Phase::Request | Phase::Receiving => {}
        }
    }

    fn on_write(&self) {
        match self.phase() {
            Phase::Head | Phase::Open => self.enter(Phase::Open, self.limits.idle_timeout),
            Phase::Upgraded => self.enter(Phase::Upgraded, self.limits.idle_timeout),
            // The bytes are `100 Continue`; the response has not begun.
            Phase::Request | Phase::Receiving => {}
        }
    }

    fn phase(&self) -> Phase {
        self.lock().0
    }

    fn enter(&self, phase: Phase, within: Duration) {
        *self.lock() = (phase, Instant::now() + within);
    }

    fn lock(&self) -> MutexGuard<'_, (Phase, Instant)> {
        // A poisoned lock is safe to use, because phase and deadline are always written together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// TCP stream of a client, with its deadline and its slot in the connection limit.
pub(crate) struct Connection {
    stream: TcpStream,
    deadline: Arc<ConnectionDeadline>,
    timer: Pin<Box<Sleep>>,
    headers: ResponseHeaders,
    _slot: ConnectionSlot,
}

impl Connection {
    pub(crate) fn new(
        stream: TcpStream,
        slot: ConnectionSlot,
        deadline: Arc<ConnectionDeadline>,
        headers: ResponseHeaders,
    ) -> Self {
        let timer = Box::pin(tokio::time::sleep_until(deadline.lock().1));
        Self { stream, deadline, timer, headers, _slot: slot }
    }

    /// Returns `TimedOut` if the deadline has passed. Also registers the task with the timer, so every poll must call
    /// this before it polls the inner stream.
    fn check_deadline(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let due = self.deadline.lock().1;
        if self.timer.deadline() != due {
            self.timer.as_mut().reset(due);
        }
        match self.timer.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }

    /// Returns the status if `bytes` are hyper's own reply to an unreadable request. In the phase `Head` only hyper can
    /// begin a response, so a status line in this phase identifies the reply. hyper's reply has no body and is written
    /// in one piece.
    fn bare_error_status(&self, bytes: &[u8]) -> Option<StatusCode> {
        let status = bytes.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
        let is_bare_error = self.deadline.phase() == Phase::Head && bytes.ends_with(b"\r\n\r\n");
        let status = StatusCode::from_bytes(status).ok()?;
        (is_bare_error && status.is_client_error()).then_some(status)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_deadline(context)?;
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.deadline.on_read();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_deadline(context)?;
        if let Some(status) = self.bare_error_status(bytes) {
            let reply = self.headers.unreadable_request(status, &Uuid::now_v7().to_string());
            // The few hundred bytes fit into an empty socket buffer. If the buffer is full, the client gets a truncated
            // response before the connection closes.
            ready!(Pin::new(&mut self.stream).poll_write(context, &reply))?;
            self.deadline.on_write();
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.deadline.on_write();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_deadline(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_deadline(context)?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
