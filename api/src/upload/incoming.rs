//! The byte stream of an upload, and the conditions that abort the upload.
//!
//! The client must keep a minimum rate: `upload_progress_bytes` per progress window. A window is `idle_timeout` of time
//! that the server spends waiting for the client; time that the client waits for the server does not count. Without the
//! minimum rate, one byte a minute would keep a connection open indefinitely.

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
use graphql::{AccessLoss, UploadAbort};
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
    lost: BoxFuture<'static, AccessLoss>,
    shutdown: BoxFuture<'static, ()>,
    has_begun: bool,
    has_ended: bool,
    abort_reason: Option<UploadAbort>,
}

impl Incoming {
    pub(super) fn new(
        body: Body,
        deadline: Arc<ConnectionDeadline>,
        limits: &Limits,
        shutdown: CancellationToken,
    ) -> Self {
        // An upload can use half of the shutdown timeout to finish. The other half remains for recording an abort.
        let grace = limits.stop_timeout / 2;
        let shutdown = async move {
            shutdown.cancelled().await;
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
            shutdown: shutdown.boxed(),
            has_begun: false,
            has_ended: false,
            abort_reason: None,
        }
    }

    /// Aborts the upload when `lost` completes, because the session of the sender has ended or its permissions were
    /// reduced.
    pub(super) fn abort_on(
        &mut self,
        lost: BoxFuture<'static, AccessLoss>,
        holder: Option<String>,
    ) {
        (self.lost, self.holder) = (lost, holder);
    }

    pub(super) fn holder(&self) -> Option<&str> {
        self.holder.as_deref()
    }

    /// Returns the reason if the upload was aborted.
    pub(super) const fn abort_reason(&self) -> Option<UploadAbort> {
        self.abort_reason
    }

    /// Returns true while unread bytes may still arrive.
    pub(super) const fn is_open(&self) -> bool {
        !self.has_ended
    }

    /// Returns true once reading has begun: only then does hyper send `100 Continue`.
    pub(super) const fn has_begun(&self) -> bool {
        self.has_begun
    }

    pub(super) async fn next(&mut self) -> Option<Result<Bytes, UploadAbort>> {
        if self.has_ended || self.abort_reason.is_some() {
            return None;
        }
        self.has_begun = true;
        self.deadline.on_upload();
        let started_at = Instant::now();
        let remaining = self.idle_timeout.saturating_sub(self.waited_in_window);
        let next = tokio::select! {
            biased;
            lost = &mut self.lost => Err(UploadAbort::AccessLost(lost)),
            () = &mut self.shutdown => Err(UploadAbort::ShuttingDown),
            next = tokio::time::timeout(remaining, self.bytes.next()) => match next {
                Ok(Some(Ok(piece))) => Ok(Some(piece)),
                Ok(None) => Ok(None),
                Ok(Some(Err(_))) => Err(UploadAbort::Disconnected),
                Err(_elapsed) => Err(UploadAbort::TooSlow),
            },
        };
        self.deadline.on_upload();
        match next {
            Ok(Some(piece)) => {
                self.count(piece.len(), started_at.elapsed());
                Some(Ok(piece))
            }
            Ok(None) => {
                self.has_ended = true;
                None
            }
            Err(abort_reason) => {
                self.has_ended = abort_reason == UploadAbort::Disconnected;
                self.abort_reason = Some(abort_reason);
                Some(Err(abort_reason))
            }
        }
    }

    fn count(&mut self, bytes: usize, waited: Duration) {
        self.received_bytes += bytes;
        self.waited_in_window += waited;
        if self.received_bytes >= self.progress_bytes {
            (self.received_bytes, self.waited_in_window) = (0, Duration::ZERO);
        }
    }

    /// Reads and discards bytes until the body ends or more than `max_bytes` bytes have arrived.
    pub(super) async fn discard(mut self, max_bytes: usize) {
        let mut read = 0;
        while let Some(Ok(piece)) = self.bytes.next().await {
            read += piece.len();
            if read > max_bytes {
                return;
            }
        }
    }
}
