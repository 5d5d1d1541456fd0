//! How long a connection may take. A `TcpStream` with one alarm that is always set.
//!
//! hyper's own header timeout also ends idle keep-alive connections and knows no stalled writes; poem's idle timeout starts
//! anew at every byte (slowloris). So the deadline lives here, where both directions pass, and the service tells it when
//! a head was whole and when the answer began: bytes are never parsed a second time.
//!
//! | phase | due | left when |
//! |---|---|---|
//! | `Head` | `head_timeout` after connecting, or after a request's first byte | the service is called |
//! | `Request` | `request_timeout` (and the grace to say so) after the head | the service has answered |
//! | `Receiving` | `idle_timeout` and `request_timeout` after the last piece of an upload; the upload itself is stricter | the service has answered |
//! | `Open` | `idle_timeout` after the last byte written | the next request's first byte |
//! | `Upgraded` | `idle_timeout` after the last byte, either way | never |

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

/// `edge` answers 504 at `request_timeout`; only if that fails too, the connection goes.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Head,
    Request,
    Receiving,
    Open,
    Upgraded,
}

/// Where a connection stands, and until when it may stand there. Shared by its stream and its service.
pub(crate) struct Pulse {
    limits: Limits,
    state: Mutex<(Phase, Instant)>,
}

impl Pulse {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        let due = Instant::now() + limits.head_timeout;
        Arc::new(Self { limits: limits.clone(), state: Mutex::new((Phase::Head, due)) })
    }

    /// A head was whole: the service has been called.
    pub(crate) fn requested(&self) {
        self.enter(Phase::Request, self.limits.request_timeout + GRACE);
    }

    /// An upload goes on: a piece of it is waited for, or has come.
    pub(crate) fn receiving(&self) {
        self.enter(
            Phase::Receiving,
            self.limits.idle_timeout + self.limits.request_timeout + GRACE,
        );
    }

    /// The service has answered; the bytes follow.
    pub(crate) fn answered(&self, status: StatusCode) {
        let upgraded = status == StatusCode::SWITCHING_PROTOCOLS;
        let phase = if upgraded { Phase::Upgraded } else { Phase::Open };
        self.enter(phase, self.limits.idle_timeout);
    }

    fn has_read(&self) {
        match self.phase() {
            Phase::Open => self.enter(Phase::Head, self.limits.head_timeout),
            Phase::Upgraded => self.enter(Phase::Upgraded, self.limits.idle_timeout),
            // More of the same head, or of a body: the deadline stands, however many bytes come.
            Phase::Head | Phase::Request | Phase::Receiving => {}
        }
    }

    fn has_written(&self) {
        match self.phase() {
            Phase::Head | Phase::Open => self.enter(Phase::Open, self.limits.idle_timeout),
            Phase::Upgraded => self.enter(Phase::Upgraded, self.limits.idle_timeout),
            // `100 Continue`, not yet the answer.
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
        // Two plain values: a panic between them cannot leave them wrong.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client's TCP stream with its deadlines and its place among its address's connections.
pub(crate) struct Connection {
    stream: TcpStream,
    pulse: Arc<Pulse>,
    alarm: Pin<Box<Sleep>>,
    headers: Headers,
    _slot: Slot,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream, slot: Slot, pulse: Arc<Pulse>, headers: Headers) -> Self {
        let alarm = Box::pin(tokio::time::sleep_until(pulse.lock().1));
        Self { stream, pulse, alarm, headers, _slot: slot }
    }

    /// Also arms the alarm for the connection's task, so it must come before every inner poll.
    fn check_deadline(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let due = self.pulse.lock().1;
        if self.alarm.deadline() != due {
            self.alarm.as_mut().reset(due);
        }
        match self.alarm.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }

    /// hyper answers bytes that are no request by itself, bare. While a head is awaited nobody else can begin an answer,
    /// so its status line gives it away; it has no body and comes whole.
    fn bare_refusal(&self, bytes: &[u8]) -> Option<StatusCode> {
        let status = bytes.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
        let is_bare = self.pulse.phase() == Phase::Head && bytes.ends_with(b"\r\n\r\n");
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
            self.pulse.has_read();
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
            // A few hundred bytes into an empty socket; a client that cannot take them gets a short answer, then the end.
            ready!(Pin::new(&mut self.stream).poll_write(context, &ours))?;
            self.pulse.has_written();
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.pulse.has_written();
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
