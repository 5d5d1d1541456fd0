//! Pace of one execution: time slices, deadline, and size of the answer.
//!
//! async-graphql awaits nothing between rows that are already loaded, so an execution could hold its thread for as long
//! as it computes. Every object of a list and every scalar that computes therefore checks the clock. At the end of a
//! time slice the whole execution yields to the other tasks of the process, and then it can also be ended.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use async_graphql::Value;

/// Time after which an execution yields to the other tasks of the process.
const SLICE: Duration = Duration::from_millis(5);
/// Time after which a query ends, so no read transaction of a query lasts longer.
pub(crate) const MAX_QUERY: Duration = Duration::from_secs(15);
/// Time after which a mutation ends; shorter than the time limit of the transports, whose error cannot say what
/// happened.
pub(crate) const MAX_MUTATION: Duration = Duration::from_secs(25);
/// Maximum size of an answer in bytes, as JSON. A value counts as at least [`MIN_SIZE`], because it takes more memory
/// than text while the answer is built.
pub(crate) const MAX_ANSWER: u64 = 8 * 1024 * 1024;
/// Size that a short value counts as, in bytes.
const MIN_SIZE: u64 = 32;

tokio::task_local! {
    /// Bytes of the rows below the row that is being built.
    static COUNTED_BELOW: AtomicU64;
}

/// Reason for which an execution ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EarlyEnd {
    /// The answer would exceed [`MAX_ANSWER`].
    TooLarge,
    /// The execution took longer than it may.
    Deadline,
    /// The filters for text took longer than they may.
    TextFilter,
}

/// The clock and the byte counter of one execution.
#[derive(Debug)]
pub(crate) struct Pace {
    limit: Duration,
    started: OnceLock<Instant>,
    /// End of the current time slice in microseconds since the start.
    slice_end: AtomicU64,
    is_paused: AtomicBool,
    bytes: AtomicU64,
    early_end: OnceLock<EarlyEnd>,
    /// Response key of the root field in which the answer became too large.
    too_large_in: OnceLock<String>,
}

impl Pace {
    /// Creates the pace of an execution that ends after `limit`.
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            limit,
            started: OnceLock::new(),
            slice_end: AtomicU64::new(0),
            is_paused: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
            early_end: OnceLock::new(),
            too_large_in: OnceLock::new(),
        }
    }

    /// Returns the time after which the execution ends.
    pub(crate) const fn limit(&self) -> Duration {
        self.limit
    }

    /// Begins a time slice.
    pub(crate) fn begin_slice(&self) {
        let end = micros(self.elapsed() + SLICE);
        self.slice_end.store(end, Ordering::Relaxed);
    }

    /// Returns true if the execution has yielded since the last call.
    pub(crate) fn take_pause(&self) -> bool {
        self.is_paused.swap(false, Ordering::Relaxed)
    }

    /// Returns the reason to end the execution, if there is one.
    pub(crate) fn early_end(&self) -> Option<EarlyEnd> {
        let is_late = self.elapsed() > self.limit;
        self.early_end.get().copied().or(is_late.then_some(EarlyEnd::Deadline))
    }

    /// Ends the execution at its next check.
    pub(crate) fn end(&self, reason: EarlyEnd) {
        self.early_end.get_or_init(|| reason);
    }

    /// Returns the response key of the root field in which the answer became too large.
    pub(crate) fn too_large_in(&self) -> Option<&str> {
        self.too_large_in.get().map(String::as_str)
    }

    /// Yields if the time slice is over. Never returns if the execution must end.
    pub(crate) async fn check(&self) {
        let mut has_yielded = false;
        poll_fn(|task| {
            if self.early_end.get().is_none() && has_yielded {
                return Poll::Ready(());
            }
            has_yielded = true;
            self.pauses(task).map_or(Poll::Ready(()), |()| Poll::Pending)
        })
        .await;
    }

    /// Returns `Some` if the time slice is over or the execution must end, after it has told the driver to yield.
    fn pauses(&self, task: &Context<'_>) -> Option<()> {
        let is_over = micros(self.elapsed()) >= self.slice_end.load(Ordering::Relaxed);
        if !is_over && self.early_end.get().is_none() {
            return None;
        }
        self.is_paused.store(true, Ordering::Relaxed);
        task.waker().wake_by_ref();
        Some(())
    }

    /// Builds a row, and adds its size to that of the answer. Rows below it have already been added. `root` returns the
    /// response key of the root field.
    pub(crate) async fn row<E>(
        &self,
        mut row: impl Future<Output = Result<Value, E>> + Unpin,
        root: impl FnOnce() -> String,
    ) -> Result<Value, E> {
        // Checked at each poll: rows that wait for one load continue together, thousands of them within one poll.
        let row = poll_fn(|task| match self.pauses(task) {
            Some(()) => Poll::Pending,
            None => Pin::new(&mut row).poll(task),
        });
        let counted = async {
            let value = row.await?;
            let below = COUNTED_BELOW.with(|below| below.load(Ordering::Relaxed));
            let size = json_size(&value);
            Ok((value, size, below))
        };
        let (value, size, below) = COUNTED_BELOW.scope(AtomicU64::new(0), counted).await?;
        // The row around this one, if there is any, contains all of it.
        let _ = COUNTED_BELOW.try_with(|outer| outer.fetch_add(size, Ordering::Relaxed));
        let own = size.saturating_sub(below);
        if self.bytes.fetch_add(own, Ordering::Relaxed) + own > MAX_ANSWER {
            self.too_large_in.get_or_init(root);
            self.end(EarlyEnd::TooLarge);
        }
        Ok(value)
    }

    fn elapsed(&self) -> Duration {
        self.started.get_or_init(Instant::now).elapsed()
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Returns the size of a value in bytes, as JSON; a short value counts as [`MIN_SIZE`].
pub(crate) fn json_size(value: &Value) -> u64 {
    let size = match value {
        Value::Null | Value::Boolean(_) | Value::Number(_) => 0,
        Value::String(text) => text.len() as u64 + 2,
        Value::Enum(name) => name.len() as u64 + 2,
        Value::Binary(bytes) => bytes.len() as u64 * 4,
        Value::List(items) => items.iter().map(json_size).sum(),
        Value::Object(entries) => {
            entries.iter().map(|(name, value)| name.len() as u64 + json_size(value)).sum()
        }
    };
    size.max(MIN_SIZE)
}
