//! Deadlines of a connection: a `TcpStream` with one timer that is always armed.
//!
//! hyper's header timeout also ends idle keep-alive connections, and does not notice stalled writes. poem's idle
//! timeout restarts at every byte, which allows slowloris attacks. So the deadline is kept here, where bytes pass in
//! both directions. The service reports when a head is complete and when the response begins, so no bytes are parsed
//! twice.
//!
//! | phase | deadline | ends when |
//! |---|---|---|
//! | `Head` | `head_timeout` after connecting, or after a request's first byte | the service is called |
//! | `Request` | `request_timeout` plus `GRACE` after the head | the service has responded |
//! | `Receiving` | `idle_timeout` + `request_timeout` + `GRACE` after an upload's last piece | as `Request` |
//! | `Open` | `idle_timeout` after the last byte written | the next request's first byte |
//! | `Upgraded` | `idle_timeout` after the last byte in either direction | never |
//!
//! In `Receiving` the upload itself has a stricter deadline.

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

use crate::{config::Limits, headers::Headers, listener::Slot};

/// Extra time for `edge` to send its 504 at `request_timeout`; the connection is closed only if that fails too.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Head,
    Request,
    Receiving,
    Open,
    Upgraded,
}

/// Phase of a connection and the deadline of that phase. Shared by the stream and the service.
pub(crate) struct ConnectionDeadline {
    limits: Limits,
    state: Mutex<(Phase, Instant)>,
}

impl ConnectionDeadline {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        let due = Instant::now() + limits.head_timeout;
        Arc::new(Self { limits: limits.clone(), state: Mutex::new((Phase::Head, due)) })
    }

    /// Records that a head is complete and the service was called.
    pub(crate) fn requested(&self) {
        self.enter(Phase::Request, self.limits.request_timeout + GRACE);
    }

    /// Records that an upload is in progress: a piece is awaited or has arrived.
    pub(crate) fn receiving(&self) {
        self.enter(
            Phase::Receiving,
            self.limits.idle_timeout + self.limits.request_timeout + GRACE,
        );
    }

    /// Records that the service has responded; the bytes follow.
    pub(crate) fn answered(&self, status: StatusCode) {
        let upgraded = status == StatusCode::SWITCHING_PROTOCOLS;
        let phase = if upgraded { Phase::Upgraded } else { Phase::Open };
        self.enter(phase, self.limits.idle_timeout);
    }

    fn has_read(&self) {
        match self.phase() {
            Phase::Open => self.enter(Phase::Head, self.limits.head_timeout),
            Phase::Upgraded => self.enter(Phase::Upgraded, self.limits.idle_timeout),
            // More of the same head or body: further bytes do not extend the deadline.
            Phase::Head | Phase::Request | Phase::Receiving => {}
        }
    }

    fn has_written(&self) {
        match self.phase() {
            Phase::Head | Phase::Open => self.enter(Phase::Open, self.limits.idle_timeout),
            Phase::Upgraded => self.enter(Phase::Upgraded, self.limits.idle_timeout),
            // `100 Continue`; the response has not begun.
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
        // A poisoned lock is safe to use: both plain values are always written together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// TCP stream of a client, with its deadline and its slot in the connection limit.
pub(crate) struct Connection {
    stream: TcpStream,
    deadline: Arc<ConnectionDeadline>,
    alarm: Pin<Box<Sleep>>,
    headers: Headers,
    _slot: Slot,
}

impl Connection {
    pub(crate) fn new(
        stream: TcpStream,
        slot: Slot,
        deadline: Arc<ConnectionDeadline>,
        headers: Headers,
    ) -> Self {
        let alarm = Box::pin(tokio::time::sleep_until(deadline.lock().1));
        Self { stream, deadline, alarm, headers, _slot: slot }
    }

    /// Returns `TimedOut` if the deadline has passed. Also registers the task with the timer, so every poll must call
    /// this before it polls the inner stream.
    fn check_deadline(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let due = self.deadline.lock().1;
        if self.alarm.deadline() != due {
            self.alarm.as_mut().reset(due);
        }
        match self.alarm.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }

    /// Returns the status if `bytes` are hyper's own reply to an unreadable request. While a head is awaited only hyper
    /// can begin a response, so the status line identifies it. Such a reply has no body and is written in one piece.
    fn bare_refusal(&self, bytes: &[u8]) -> Option<StatusCode> {
        let status = bytes.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
        let is_bare = self.deadline.phase() == Phase::Head && bytes.ends_with(b"\r\n\r\n");
        let status = StatusCode::from_bytes(status).ok()?;
        (is_bare && status.is_client_error()).then_some(status)
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
            self.deadline.has_read();
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
        if let Some(status) = self.bare_refusal(bytes) {
            let ours = self.headers.unreadable_request(status, &Uuid::now_v7().to_string());
            // A few hundred bytes fit into an empty socket buffer. A client that cannot receive them gets a truncated
            // response, then the connection closes.
            ready!(Pin::new(&mut self.stream).poll_write(context, &ours))?;
            self.deadline.has_written();
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.deadline.has_written();
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
