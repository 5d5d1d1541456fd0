//! Claiming jobs ahead of those who do them: as many as there are slots, woken by hints, with a poll behind.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use domain::Db;
use futures_util::task::AtomicWaker;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::queue::{
    claim::{self, Claimant, Claimed},
    claims::{Claim, ClaimRegistry},
    completion::{Acknowledger, Outcome},
    lease::Disposition,
};

/// What a crash between a commit and its hint would miss is found by looking.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// While the queue is busy, this often it is looked for what has become due, and for suspects.
const UPKEEP_INTERVAL: Duration = Duration::from_millis(100);
/// Between two looks, however many hints come: a queue that was found empty is left alone for a moment.
const MIN_POLL_GAP: Duration = Duration::from_millis(2);
/// So many jobs are claimed at a time.
const BATCH: usize = 500;

/// A claimed job with what keeps it.
#[derive(Debug, Clone)]
pub struct ClaimedJob {
    /// The job.
    pub claimed: Claimed,
    /// Its claim.
    pub claim: Arc<Claim>,
}

/// Claimed jobs that nobody has started.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    jobs: Mutex<VecDeque<ClaimedJob>>,
    waker: AtomicWaker,
}

impl Buffer {
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<ClaimedJob>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn pop(&self, context: &std::task::Context<'_>) -> Option<ClaimedJob> {
        self.waker.register(context.waker());
        self.lock().pop_front()
    }

    /// A suspect goes first: it has waited for its own kind only.
    fn push(&self, jobs: impl Iterator<Item = ClaimedJob>) {
        let mut waiting = self.lock();
        for job in jobs {
            if job.claimed.is_suspect {
                waiting.push_front(job);
            } else {
                waiting.push_back(job);
            }
        }
        drop(waiting);
        self.waker.wake();
    }

    fn drain(&self) -> VecDeque<ClaimedJob> {
        std::mem::take(&mut *self.lock())
    }
}

/// Claims for one queue.
pub(crate) struct Fetcher {
    pub(crate) db: Db,
    pub(crate) claimant: Claimant,
    pub(crate) registry: ClaimRegistry,
    pub(crate) slots: Arc<Semaphore>,
    /// Places that must be free before it is min_free asking.
    pub(crate) min_free: usize,
    pub(crate) buffer: Arc<Buffer>,
    pub(crate) wake: Arc<Notify>,
    /// Whether a suspect is under way here: never two at a time.
    pub(crate) suspect: Arc<AtomicBool>,
    pub(crate) acknowledger: Acknowledger,
    pub(crate) stop: CancellationToken,
}

/// What a poll at the queue found.
struct Fetched {
    /// There may be more.
    is_full: bool,
    /// When the next scheduled job is due.
    due_in: Option<Duration>,
}

impl Fetcher {
    /// Claims until written to stop; gives back then what nobody has started.
    pub(crate) async fn run(self) {
        let mut is_away = false;
        let mut last_upkeep = None;
        while !self.stop.is_cancelled() {
            let free = tokio::select! {
                () = self.stop.cancelled() => break,
                free = self.slots.acquire_many(u32::try_from(self.min_free).unwrap_or(1)) => free,
            };
            // Never closed. What is claimed keeps its slots by itself.
            drop(free);
            let wait = match self.poll(&mut last_upkeep).await {
                Ok(poll) => {
                    if is_away {
                        tracing::info!(queue = self.claimant.queue.as_str(), "taking jobs again");
                        is_away = false;
                    }
                    if poll.is_full {
                        continue;
                    }
                    poll.due_in.unwrap_or(POLL_INTERVAL).min(POLL_INTERVAL)
                }
                Err(error) => {
                    if !is_away {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(
                            error,
                            queue = self.claimant.queue.as_str(),
                            "no jobs can be taken"
                        );
                        is_away = true;
                    }
                    POLL_INTERVAL / 4
                }
            };
            let polled_at = tokio::time::Instant::now();
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = self.wake.notified() => tokio::time::sleep_until(polled_at + MIN_POLL_GAP).await,
                () = tokio::time::sleep(wait) => {}
            }
        }
        for job in self.buffer.drain() {
            self.acknowledger.end(job.claim, Outcome::Failed(Disposition::Release));
        }
    }

    async fn poll(&self, last_upkeep: &mut Option<Instant>) -> domain::Result<Fetched> {
        let limit = self.slots.available_permits().min(BATCH);
        // Taken before the claim, so that whoever waits for all slots at a stop waits for this one, too.
        let Ok(mut slots) = self.slots.try_acquire_many(u32::try_from(limit).unwrap_or(0)) else {
            return Ok(Fetched { is_full: false, due_in: None });
        };
        let tx = self.db.fleet().await?;
        let claimed = self.claimant.claim(&tx, limit).await?;
        let is_full = claimed.len() == limit;
        if claimed.is_empty() {
            tx.rollback().await?;
        } else {
            tx.commit().await?;
        }
        if let Some(taken) = slots.split(claimed.len()) {
            taken.forget();
        }
        drop(slots);
        self.take(claimed);
        let is_due = last_upkeep.is_none_or(|at| at.elapsed() >= UPKEEP_INTERVAL);
        if is_full && !is_due {
            return Ok(Fetched { is_full, due_in: None });
        }
        *last_upkeep = Some(Instant::now());
        let tx = self.db.fleet().await?;
        let (promoted, due_in) = claim::promote(&tx, self.claimant.queue).await?;
        let suspect = if self.suspect.load(Ordering::Acquire) {
            None
        } else {
            self.claimant.claim_suspect(&tx).await?
        };
        tx.commit().await?;
        self.take(suspect.into_iter().collect());
        Ok(Fetched { is_full: is_full || promoted > 0, due_in })
    }

    fn take(&self, claimed: Vec<Claimed>) {
        if claimed.is_empty() {
            return;
        }
        if claimed.iter().any(|claimed| claimed.is_suspect) {
            self.suspect.store(true, Ordering::Release);
        }
        let claims =
            self.registry.add(claimed.iter().map(|claimed| (claimed.lease, !claimed.is_suspect)));
        let jobs =
            claimed.into_iter().zip(claims).map(|(claimed, claim)| ClaimedJob { claimed, claim });
        self.buffer.push(jobs);
    }
}
