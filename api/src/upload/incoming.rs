//! The byte stream of an upload, and the conditions that end it early.
//!
//! Only the time spent waiting for the client counts, not the time the client waits for the server. In each
//! `idle_timeout` of that time, `upload_progress_bytes` must arrive. Without this rule, one byte a minute would keep a
//! connection open without end.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{
    FutureExt, Stream, StreamExt,
    future::{BoxFuture, pending},
};
use graphql::{BrokenOff, Lost};
use poem::Body;
use tokio_util::sync::CancellationToken;

use crate::{config::Limits, connection::ConnectionDeadline};

/// Byte stream of an upload, with its progress deadline.
pub(super) struct Incoming {
    bytes: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>,
    deadline: Arc<ConnectionDeadline>,
    idle_timeout: Duration,
    progress_bytes: usize,
    /// Time spent waiting for the client in the current progress window.
    waited_in_window: Duration,
    /// Bytes received in the current progress window.
    received_bytes: usize,
    holder: Option<String>,
    lost: BoxFuture<'static, Lost>,
    stopping: BoxFuture<'static, ()>,
    has_begun: bool,
    has_ended: bool,
    interrupted: Option<BrokenOff>,
}

impl Incoming {
    pub(super) fn new(
        body: Body,
        deadline: Arc<ConnectionDeadline>,
        limits: &Limits,
        stopping: CancellationToken,
    ) -> Self {
        // An upload may use half of the shutdown time to finish; the other half is left to record that it did not.
        let grace = limits.stop_timeout / 2;
        let stopping = async move {
            stopping.cancelled().await;
            tokio::time::sleep(grace).await;
        };
        Self {
            bytes: Box::pin(body.into_bytes_stream()),
            deadline,
            idle_timeout: limits.idle_timeout,
            progress_bytes: limits.upload_progress_bytes,
            waited_in_window: Duration::ZERO,
            received_bytes: 0,
            holder: None,
            lost: pending().boxed(),
            stopping: stopping.boxed(),
            has_begun: false,
            has_ended: false,
            interrupted: None,
        }
    }

    /// Ends the upload early if `lost` resolves: the sender's session ended or its permissions shrank.
    pub(super) fn watch(&mut self, lost: BoxFuture<'static, Lost>, holder: Option<String>) {
        (self.lost, self.holder) = (lost, holder);
    }

    pub(super) fn holder(&self) -> Option<&str> {
        self.holder.as_deref()
    }

    /// Returns the reason if the upload ended early.
    pub(super) const fn interrupted(&self) -> Option<BrokenOff> {
        self.interrupted
    }

    /// Returns true while unread bytes may still arrive.
    pub(super) const fn is_open(&self) -> bool {
        !self.has_ended
    }

    /// Returns true once reading has begun: only then does hyper send `100 Continue`.
    pub(super) const fn has_begun(&self) -> bool {
        self.has_begun
    }

    pub(super) async fn next(&mut self) -> Option<Result<Bytes, BrokenOff>> {
        if self.has_ended || self.interrupted.is_some() {
            return None;
        }
        self.has_begun = true;
        self.deadline.receiving();
        let began = Instant::now();
        let left = self.idle_timeout.saturating_sub(self.waited_in_window);
        let next = tokio::select! {
            biased;
            lost = &mut self.lost => Err(BrokenOff::Lost(lost)),
            () = &mut self.stopping => Err(BrokenOff::Stopping),
            next = tokio::time::timeout(left, self.bytes.next()) => match next {
                Ok(Some(Ok(piece))) => Ok(Some(piece)),
                Ok(None) => Ok(None),
                Ok(Some(Err(_))) => Err(BrokenOff::Left),
                Err(_elapsed) => Err(BrokenOff::Slow),
            },
        };
        self.deadline.receiving();
        match next {
            Ok(Some(piece)) => {
                self.count(piece.len(), began.elapsed());
                Some(Ok(piece))
            }
            Ok(None) => {
                self.has_ended = true;
                None
            }
            Err(interrupted) => {
                self.has_ended = interrupted == BrokenOff::Left;
                self.interrupted = Some(interrupted);
                Some(Err(interrupted))
            }
        }
    }

    fn count(&mut self, bytes: usize, waited_in_window: Duration) {
        self.received_bytes += bytes;
        self.waited_in_window += waited_in_window;
        if self.received_bytes >= self.progress_bytes {
            (self.received_bytes, self.waited_in_window) = (0, Duration::ZERO);
        }
    }

    /// Reads and discards until the body ends or more than `most` bytes have arrived.
    pub(super) async fn discard(mut self, most: usize) {
        let mut read = 0;
        while let Some(Ok(piece)) = self.bytes.next().await {
            read += piece.len();
            if read > most {
                return;
            }
        }
    }
}
