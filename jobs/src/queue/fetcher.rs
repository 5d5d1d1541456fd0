//! Prefetches jobs: claims jobs ahead of the handlers, up to the number of free slots. A slot is a permit for one claim
//! of a queue in this process.
//!
//! A hint is a notification over Redis, without content, that rows may have changed; here, that the queue may have
//! ready jobs. Hints wake the fetcher; polling finds the jobs whose hint was lost. A suspect is a job whose worker died
//! while the job ran, and that has at most two attempts left. The fetcher claims at most one suspect at a time, without
//! a slot.

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
    claim::{self, Claimant, ClaimedRow},
    claims::{Claim, ClaimRegistry},
    completion::{Acknowledger, Outcome},
    lease::Disposition,
};

/// Maximum time between two polls. Polling finds jobs whose hint was lost, e.g. by a crash between the commit and the
/// hint.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Minimum interval between two promotions under backlog. Every poll promotes due jobs and claims a suspect, but at
/// most every 100 ms while the queue has more ready jobs than this process has free slots.
const PROMOTION_INTERVAL: Duration = Duration::from_millis(100);
/// Minimum delay before a poll that a hint triggers, counted from the previous poll. A stream of hints thus does
/// not make the fetcher poll a queue without ready jobs continuously.
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(2);
/// Delay before the next poll if a poll has failed, e.g. while the database is unavailable.
const RETRY_DELAY: Duration = Duration::from_millis(250);
/// Maximum number of jobs per claiming statement.
const MAX_BATCH: usize = 500;

/// A claimed job: its columns and its claim.
#[derive(Debug, Clone)]
pub struct ClaimedJob {
    /// Columns of the job, as the claiming statement returned them.
    pub row: ClaimedRow,
    /// State of the claim, shared with the registry.
    pub claim: Arc<Claim>,
}

/// Jobs that are claimed and that no handler has started.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    jobs: Mutex<VecDeque<ClaimedJob>>,
    /// Waker of the apalis consumer that polls the buffer. Not to be confused with [`Fetcher::wake`].
    waker: AtomicWaker,
}

impl Buffer {
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<ClaimedJob>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn pop(&self, context: &std::task::Context<'_>) -> Option<ClaimedJob> {
        // Registered before the buffer is read, so that a job that is pushed in between wakes the consumer.
        self.waker.register(context.waker());
        self.lock().pop_front()
    }

    /// Adds jobs to the buffer, and wakes the consumer. A suspect goes to the front: it was claimed late, because the
    /// fetcher waits for the end of one suspect before it claims the next.
    fn push(&self, jobs: impl Iterator<Item = ClaimedJob>) {
        let mut buffered = self.lock();
        for job in jobs {
            if job.row.is_suspect {
                buffered.push_front(job);
            } else {
                buffered.push_back(job);
            }
        }
        drop(buffered);
        self.waker.wake();
    }

    fn take_all(&self) -> VecDeque<ClaimedJob> {
        std::mem::take(&mut *self.lock())
    }
}

/// Fetcher of one queue in this process.
pub(crate) struct Fetcher {
    pub(crate) db: Db,
    pub(crate) claimant: Claimant,
    pub(crate) registry: ClaimRegistry,
    pub(crate) slots: Arc<Semaphore>,
    /// Number of slots that must be free before the fetcher polls.
    pub(crate) min_free: usize,
    pub(crate) buffer: Arc<Buffer>,
    /// Wake flag of the fetcher, raised by hints, by the end of a suspect, and when slots are free again.
    pub(crate) wake: Arc<Notify>,
    /// True while this process has a claim on a suspect of the queue. The fetcher then claims no other suspect.
    pub(crate) has_suspect: Arc<AtomicBool>,
    pub(crate) acknowledger: Acknowledger,
    pub(crate) stop: CancellationToken,
}

/// Result of one poll of the queue.
struct PollResult {
    /// True if the queue may have more ready jobs.
    may_have_more: bool,
    /// Time until the next scheduled job is due; `None` if no job is scheduled, or if the poll did not include the
    /// promotion.
    due_in: Option<Duration>,
}

impl Fetcher {
    /// Claims jobs until `stop` is cancelled, then releases the jobs that no handler has started, so that another
    /// worker can claim them. The releases are queued for the acknowledger, which writes them.
    pub(crate) async fn run(self) {
        let mut is_failing = false;
        let mut last_promotion = None;
        while !self.stop.is_cancelled() {
            let free = tokio::select! {
                () = self.stop.cancelled() => break,
                free = self.slots.acquire_many(u32::try_from(self.min_free).unwrap_or(1)) => free,
            };
            // These permits only show that enough slots are free; `poll` acquires the permits of the jobs that it
            // claims. The semaphore is never closed, so `acquire_many` cannot fail.
            drop(free);
            let wait = match self.poll(&mut last_promotion).await {
                Ok(poll) => {
                    if is_failing {
                        let queue = self.claimant.queue.as_str();
                        tracing::info!(queue, "claiming jobs from queue {queue} again");
                        is_failing = false;
                    }
                    if poll.may_have_more {
                        continue;
                    }
                    poll.due_in.unwrap_or(POLL_INTERVAL).min(POLL_INTERVAL)
                }
                Err(error) => {
                    if !is_failing {
                        let error = &error as &dyn std::error::Error;
                        let queue = self.claimant.queue.as_str();
                        tracing::warn!(
                            error,
                            queue,
                            "cannot claim jobs from queue {queue}: retrying every 250 ms"
                        );
                        is_failing = true;
                    }
                    RETRY_DELAY
                }
            };
            let polled_at = tokio::time::Instant::now();
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = self.wake.notified() => tokio::time::sleep_until(polled_at + MIN_POLL_INTERVAL).await,
                () = tokio::time::sleep(wait) => {}
            }
        }
        for job in self.buffer.take_all() {
            self.acknowledger.submit(job.claim, Outcome::Unfinished(Disposition::Release));
        }
    }

    async fn poll(&self, last_promotion: &mut Option<Instant>) -> domain::Result<PollResult> {
        let limit = self.slots.available_permits().min(MAX_BATCH);
        // Acquired before the claiming statement, so that a shutdown that waits for all slots also waits for this
        // statement.
        let Ok(mut slots) = self.slots.try_acquire_many(u32::try_from(limit).unwrap_or(0)) else {
            return Ok(PollResult { may_have_more: false, due_in: None });
        };
        let tx = self.db.fleet().await?;
        let claimed = self.claimant.claim(&tx, limit).await?;
        let may_have_more = claimed.len() == limit;
        if claimed.is_empty() {
            tx.rollback().await?;
        } else {
            tx.commit().await?;
        }
        // `forget` leaves the permits of the claimed jobs to `AckWriter`, which returns them to the semaphore when the
        // outcomes have been written. The other permits are returned here.
        if let Some(claimed_slots) = slots.split(claimed.len()) {
            claimed_slots.forget();
        }
        drop(slots);
        self.buffer_claims(claimed);
        let is_promotion_due = last_promotion.is_none_or(|at| at.elapsed() >= PROMOTION_INTERVAL);
        if may_have_more && !is_promotion_due {
            return Ok(PollResult { may_have_more, due_in: None });
        }
        *last_promotion = Some(Instant::now());
        let tx = self.db.fleet().await?;
        let (promoted, due_in) = claim::promote(&tx, self.claimant.queue).await?;
        let suspect = if self.has_suspect.load(Ordering::Acquire) {
            None
        } else {
            self.claimant.claim_suspect(&tx).await?
        };
        tx.commit().await?;
        self.buffer_claims(suspect.into_iter().collect());
        Ok(PollResult { may_have_more: may_have_more || promoted > 0, due_in })
    }

    fn buffer_claims(&self, claimed: Vec<ClaimedRow>) {
        if claimed.is_empty() {
            return;
        }
        if claimed.iter().any(|claimed| claimed.is_suspect) {
            self.has_suspect.store(true, Ordering::Release);
        }
        let claims = self.registry.add(claimed.iter().map(|claimed| {
            let occupies_slot = !claimed.is_suspect;
            (claimed.lease, occupies_slot)
        }));
        let jobs = claimed
            .into_iter()
            .zip(claims)
            .map(|(claimed, claim)| ClaimedJob { row: claimed, claim });
        self.buffer.push(jobs);
    }
}
