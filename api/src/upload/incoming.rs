//! The bytes of an upload, for as long as they may come.
//!
//! Counted is only the time for which we wait for the client, not that for which it waits for us: in each `idle_timeout` of
//! it `upload_progress_bytes` must come. A byte a minute keeps a socket open for ever; this ends it within two.

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

use crate::{config::Limits, connection::Pulse};

/// What a client sends.
pub(super) struct Incoming {
    bytes: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>,
    pulse: Arc<Pulse>,
    patience: Duration,
    progress_bytes: usize,
    /// Waited since the last progress, and what has come since.
    waited: Duration,
    come: usize,
    holder: Option<String>,
    lost: BoxFuture<'static, Lost>,
    stopping: BoxFuture<'static, ()>,
    is_begun: bool,
    has_ended: bool,
    broken: Option<BrokenOff>,
}

impl Incoming {
    pub(super) fn new(
        body: Body,
        pulse: Arc<Pulse>,
        limits: &Limits,
        stopping: CancellationToken,
    ) -> Self {
        // What is nearly done may end; the rest keeps half of the time to say that it did not.
        let grace = limits.stop_timeout / 2;
        let stopping = async move {
            stopping.cancelled().await;
            tokio::time::sleep(grace).await;
        };
        Self {
            bytes: Box::pin(body.into_bytes_stream()),
            pulse,
            patience: limits.idle_timeout,
            progress_bytes: limits.upload_progress_bytes,
            waited: Duration::ZERO,
            come: 0,
            holder: None,
            lost: pending().boxed(),
            stopping: stopping.boxed(),
            is_begun: false,
            has_ended: false,
            broken: None,
        }
    }

    /// Ends it too when its sender loses the right to it.
    pub(super) fn watch(&mut self, lost: BoxFuture<'static, Lost>, holder: Option<String>) {
        (self.lost, self.holder) = (lost, holder);
    }

    pub(super) fn holder(&self) -> Option<&str> {
        self.holder.as_deref()
    }

    /// Why it ended before its end, if it did.
    pub(super) const fn broken(&self) -> Option<BrokenOff> {
        self.broken
    }

    /// Whether something may still come that nobody has read.
    pub(super) const fn is_open(&self) -> bool {
        !self.has_ended
    }

    /// Whether anything was read: only then is the client told to go on.
    pub(super) const fn is_begun(&self) -> bool {
        self.is_begun
    }

    pub(super) async fn next(&mut self) -> Option<Result<Bytes, BrokenOff>> {
        if self.has_ended || self.broken.is_some() {
            return None;
        }
        self.is_begun = true;
        self.pulse.receiving();
        let began = Instant::now();
        let left = self.patience.saturating_sub(self.waited);
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
        self.pulse.receiving();
        match next {
            Ok(Some(piece)) => {
                self.count(piece.len(), began.elapsed());
                Some(Ok(piece))
            }
            Ok(None) => {
                self.has_ended = true;
                None
            }
            Err(broken) => {
                self.has_ended = broken == BrokenOff::Left;
                self.broken = Some(broken);
                Some(Err(broken))
            }
        }
    }

    fn count(&mut self, bytes: usize, waited: Duration) {
        self.come += bytes;
        self.waited += waited;
        if self.come >= self.progress_bytes {
            (self.come, self.waited) = (0, Duration::ZERO);
        }
    }

    /// Reads on without looking, until the client has sent so much.
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
