//! Runs an execution and what its loaders load, in one task.
//!
//! A load starts only when the execution can do nothing more by itself: then every row has said what it needs, so a
//! nested list costs one statement however long it is. Loads that run in tasks of their own start when the scheduler
//! likes, and a hundred rows cost ten statements. Dropping the request drops its loads.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered, task::AtomicWaker};

/// Loads that were asked for and have not started.
#[derive(Clone, Default)]
pub(crate) struct Loads(Arc<Mutex<Vec<BoxFuture<'static, ()>>>>);

impl Loads {
    /// Asks for one.
    pub(crate) fn push(&self, load: BoxFuture<'static, ()>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(load);
    }

    fn take(&self) -> Vec<BoxFuture<'static, ()>> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// RuleText whether the execution was woken since it was last polled, and passes the waking on.
#[derive(Default)]
struct Signal {
    woken: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.task.wake();
    }
}

/// Drives an execution to its end.
pub(crate) async fn drive<T>(execution: impl Future<Output = T>, loads: Loads) -> T {
    let mut execution = pin!(execution);
    let mut running = FuturesUnordered::new();
    let signal = Arc::new(Signal::default());
    let waker = Waker::from(Arc::clone(&signal));
    let driven = poll_fn(move |task| {
        signal.task.register(task.waker());
        loop {
            signal.woken.store(false, Ordering::Release);
            if let Poll::Ready(done) = execution.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Poll::Ready(done);
            }
            if signal.woken.load(Ordering::Acquire) {
                continue; // It has more to say before anything is loaded.
            }
            running.extend(loads.take());
            while let Poll::Ready(Some(())) = running.poll_next_unpin(task) {}
            if !signal.woken.load(Ordering::Acquire) {
                return Poll::Pending;
            }
        }
    });
    // Without the scheduler's budget: it would make what is ready look as if it waited, and the loop spin.
    tokio::task::unconstrained(driven).await
}
