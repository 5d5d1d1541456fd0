//! Runs the execution of a document and the loads of its loaders in one task.
//!
//! Loads start only when the execution cannot progress without them. By then every row has requested its keys, so a
//! nested list costs one statement whatever its length. Loads in separate tasks would start whenever the scheduler runs
//! them, and a hundred rows would cost about ten statements. Dropping the request also drops its loads.
//!
//! An execution yields to the other tasks of the process after each time slice, and ends at its deadline even if it
//! awaits nothing (see `pace`).

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

use crate::request::pace::{EarlyEnd, Pace};

/// Loads that are queued and have not started.
#[derive(Clone, Default)]
pub(crate) struct Loads(Arc<Mutex<Vec<BoxFuture<'static, ()>>>>);

impl Loads {
    /// Queues a load until the execution needs it.
    pub(crate) fn push(&self, load: BoxFuture<'static, ()>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(load);
    }

    fn take(&self) -> Vec<BoxFuture<'static, ()>> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A waker that records that the execution was woken since its last poll, and wakes the task.
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

/// Polls an execution to completion. Runs the queued loads whenever the execution is blocked.
///
/// # Errors
/// Returns the reason if the execution was ended early.
pub(crate) async fn drive<T>(
    execution: impl Future<Output = T>,
    loads: Loads,
    pace: &Pace,
) -> Result<T, EarlyEnd> {
    let mut execution = pin!(execution);
    let mut deadline = pin!(tokio::time::sleep(pace.limit()));
    let mut running = FuturesUnordered::new();
    let signal = Arc::new(Signal::default());
    let waker = Waker::from(Arc::clone(&signal));
    let driver = poll_fn(move |task| {
        signal.task.register(task.waker());
        pace.begin_slice();
        loop {
            signal.woken.store(false, Ordering::Release);
            if let Poll::Ready(output) = execution.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Poll::Ready(Ok(output));
            }
            if pace.take_pause() {
                // The slice is over. The task has been woken and continues after other tasks.
                return pace.early_end().map_or(Poll::Pending, |end| Poll::Ready(Err(end)));
            }
            if signal.woken.load(Ordering::Acquire) {
                continue; // The execution can progress, and may request more keys before a load starts.
            }
            running.extend(loads.take());
            while let Poll::Ready(Some(())) = running.poll_next_unpin(task) {}
            if !signal.woken.load(Ordering::Acquire) {
                let is_over = deadline.as_mut().poll(task).is_ready();
                return if is_over { Poll::Ready(Err(EarlyEnd::Deadline)) } else { Poll::Pending };
            }
        }
    });
    // Runs outside tokio's cooperative budget. Once the budget is used up, ready futures would return pending and wake
    // immediately, and the loop would spin.
    tokio::task::unconstrained(driver).await
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, rc::Rc, time::Duration};

    use super::*;

    /// An execution that computes without end, and checks the clock.
    async fn endless(pace: &Pace) {
        loop {
            pace.check().await;
        }
    }

    #[tokio::test]
    async fn an_execution_that_awaits_nothing_ends_at_its_deadline() {
        let pace = Pace::new(Duration::from_millis(20));
        assert_eq!(drive(endless(&pace), Loads::default(), &pace).await, Err(EarlyEnd::Deadline));
    }

    #[tokio::test]
    async fn an_execution_that_waits_for_ever_ends_at_its_deadline() {
        let pace = Pace::new(Duration::from_millis(20));
        let waiting = std::future::pending::<()>();
        assert_eq!(drive(waiting, Loads::default(), &pace).await, Err(EarlyEnd::Deadline));
    }

    #[tokio::test]
    async fn other_tasks_run_while_an_execution_computes() {
        let pace = Pace::new(Duration::from_mins(1));
        let (has_run, seen) = (Rc::new(Cell::new(false)), Cell::new(false));
        let other = has_run.clone();
        let tasks = tokio::task::LocalSet::new();
        tasks.spawn_local(async move { other.set(true) });
        let computing = async {
            while !has_run.get() {
                pace.check().await;
            }
            seen.set(true);
        };
        tasks.run_until(drive(computing, Loads::default(), &pace)).await.unwrap();
        assert!(seen.get());
    }

    #[tokio::test]
    async fn an_execution_ends_at_its_next_check_for_the_reason_that_was_given() {
        let pace = Pace::new(Duration::from_mins(1));
        let execution = async {
            pace.end(EarlyEnd::TooLarge);
            endless(&pace).await;
        };
        let ended = drive(execution, Loads::default(), &pace).await;
        assert_eq!(ended, Err(EarlyEnd::TooLarge));
    }
}
