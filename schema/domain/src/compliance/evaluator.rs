//! Threads on which rules are evaluated.
//!
//! An evaluation is arithmetic that awaits nothing: a hundred milliseconds an asset with the most expensive rules, for
//! thousands of assets. On the threads of the server it would hold up every request and every lease, however often it
//! yielded. So a process has threads of its own for it, one per core, with a lower priority than its other threads:
//! under load the requests come first.
//!
//! Chosen: one pool per process, made on first use. Shutdown need not reach it: an evaluation changes nothing, and its
//! transaction ends with the process. Given up: passing the pool from `main` to each evaluation. Revisit when a process
//! needs two pools.
//!
//! An evaluation runs in slices of 5 ms. Between two slices other evaluations run, those of other organizations and those
//! of its own. An organization never has more than half of the threads, but at least two.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use tokio::{
    runtime::{Builder, Runtime},
    sync::Semaphore,
    task::JoinSet,
};

use crate::base::entity::OrganizationId;

/// Duration of a slice. The step that is under way when it has passed is the last one of the slice.
const SLICE: Duration = Duration::from_millis(5);
/// Niceness of the threads, from 0 (as all others) to 19 (only when nothing else runs).
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

static EVALUATOR: LazyLock<Evaluator> = LazyLock::new(|| {
    Evaluator::new(std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
});

/// Calls `step` with each item, in order, on the evaluation threads. Returns the state after the last item. If the
/// future is dropped, as at the deadline of a request, the work ends with its current step.
pub(crate) async fn fold<I, S, F>(org: OrganizationId, items: I, state: S, step: F) -> S
where
    I: IntoIterator<IntoIter: Send + 'static>,
    S: Send + 'static,
    F: FnMut(&mut S, I::Item) + Send + 'static,
{
    EVALUATOR.fold(org, items.into_iter(), state, step).await
}

/// The evaluation threads, and the share of each organization in them.
struct Evaluator {
    runtime: Runtime,
    /// Number of threads that one organization may use at the same time.
    share: usize,
    shares: Mutex<HashMap<OrganizationId, Weak<Semaphore>>>,
}

impl Evaluator {
    fn new(threads: usize) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("evaluation")
            .on_thread_start(lower_priority)
            .build()
            .expect("threads without a driver need nothing that can be missing");
        Self { runtime, share: threads.div_ceil(2).max(2), shares: Mutex::default() }
    }

    async fn fold<S: Send + 'static, T>(
        &self,
        org: OrganizationId,
        mut items: impl Iterator<Item = T> + Send + 'static,
        mut state: S,
        mut step: impl FnMut(&mut S, T) + Send + 'static,
    ) -> S {
        let share = self.share_of(org);
        let work = async move {
            loop {
                // Semaphores are fair: after each slice the place goes to the evaluation that waits longest.
                let place = share.acquire().await.expect("the semaphore is never closed");
                let begun = Instant::now();
                while begun.elapsed() < SLICE {
                    let Some(item) = items.next() else { return state };
                    step(&mut state, item);
                }
                drop(place);
                tokio::task::yield_now().await;
            }
        };
        // A set aborts its task when it is dropped.
        let mut task = JoinSet::new();
        task.spawn_on(work, self.runtime.handle());
        match task.join_next().await.expect("the set has one task") {
            Ok(state) => state,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    fn share_of(&self, org: OrganizationId) -> Arc<Semaphore> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(&org).and_then(Weak::upgrade) {
            return share;
        }
        shares.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(self.share));
        shares.insert(org, Arc::downgrade(&share));
        share
    }
}

/// Lowers the priority of the current thread, where the system has priorities of threads.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    if let Err(error) =
        rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS)
    {
        tracing::warn!(%error, "the priority of an evaluation thread cannot be lowered");
    }
}

#[cfg(test)]
mod tests {
    use std::{
        iter,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;
    use crate::base::id::Id;

    #[tokio::test]
    async fn work_is_done_in_order_on_threads_of_its_own() {
        let names = fold(Id::new(), 0..3, Vec::new(), |names, item| {
            names.push((item, std::thread::current().name().map(str::to_owned)));
        });
        let expected: Vec<_> = (0..3).map(|item| (item, Some("evaluation".to_owned()))).collect();
        assert_eq!(names.await, expected);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_threads_have_a_lower_priority() {
        let niceness = fold(Id::new(), [()], None, |niceness, ()| {
            let thread = Some(rustix::thread::gettid());
            *niceness = rustix::process::getpriority_process(thread).ok();
        });
        assert_eq!(niceness.await, Some(NICENESS));
        assert_eq!(rustix::process::getpriority_process(Some(rustix::thread::gettid())), Ok(0));
    }

    #[test]
    fn work_without_an_end_keeps_nobody_waiting_and_ends_when_it_is_dropped() {
        let evaluator = Evaluator::new(1);
        let waiting = Builder::new_current_thread().build().unwrap();
        let (mine, other) = (Id::new(), Id::new());
        waiting.block_on(async {
            let alive = Arc::new(());
            let mut endless = JoinSet::new();
            let evaluator = &*Box::leak(Box::new(evaluator));
            for _ in 0..6 {
                let alive = Arc::clone(&alive);
                endless.spawn(evaluator.fold(mine, iter::repeat(alive), (), |(), _| {}));
            }
            let done = async |org| evaluator.fold(org, 0..100_000, 0, |sum, n| *sum += n).await;
            assert_eq!((done(other).await, done(mine).await), (4_999_950_000_i64, 4_999_950_000));
            drop(endless);
            while Arc::strong_count(&alive) > 1 {
                tokio::task::yield_now().await;
            }
        });
    }

    #[tokio::test]
    async fn an_organization_never_has_more_than_its_share_of_the_threads() {
        let evaluator: &'static Evaluator = Box::leak(Box::new(Evaluator::new(6)));
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut all = JoinSet::new();
        let org = Id::new();
        for _ in 0..12 {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            all.spawn(evaluator.fold(org, 0..200, (), move |(), _| {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::yield_now();
                running.fetch_sub(1, Ordering::SeqCst);
            }));
        }
        all.join_all().await;
        let most = most.load(Ordering::SeqCst);
        assert!((1..=3).contains(&most), "{most} at once");
    }

    #[tokio::test]
    #[should_panic(expected = "the step fails")]
    async fn a_panic_reaches_the_caller() {
        fold(Id::new(), [()], (), |(), ()| panic!("the step fails")).await;
    }
}
