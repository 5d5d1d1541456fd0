//! Writes the outcomes of claims to Postgres: finished, retried, snoozed, released, buried or cancelled jobs. The
//! writer takes the outcomes that arrived during its previous write, and writes them in batches. A batch contains
//! outcomes of one kind, succeeded or unfinished, and is one transaction.
//!
//! No outcome is lost while the database is unavailable. The outcomes wait in memory, the leases of their jobs are
//! still renewed, and the writer retries every 250 ms. An outcome is stale if its claim has ended meanwhile, e.g.
//! because another worker has claimed the job. Postgres then changes nothing, and the writer discards and counts the
//! outcome.

use std::{collections::HashSet, sync::Arc, time::Duration};

use domain::{Db, base::event::Event, entity::OrganizationId, fleet::job::Queue};
use tokio::sync::{Notify, Semaphore, mpsc};

use crate::queue::{
    claims::{Claim, ClaimRegistry},
    lease::{self, Disposition, Lease},
};

/// Maximum number of outcomes per batch.
const MAX_BATCH: usize = 1000;
/// Delay between two attempts to write a batch, e.g. while the database is unavailable.
const RETRY_DELAY: Duration = Duration::from_millis(250);

/// Outcome of a claimed job, to be written to Postgres.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The handler succeeded. The job moves to the history.
    Succeeded,
    /// The handler failed, was stopped or never started. The disposition decides what happens to the job next: retry,
    /// snooze, release, bury or cancel.
    Unfinished(Disposition),
    /// No outcome to write: the handler committed the completion in its own transaction, or the claim is lost.
    NothingToWrite,
}

/// Handle that queues the outcomes of claims for writing. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Acknowledger {
    sender: mpsc::UnboundedSender<(Arc<Claim>, Outcome)>,
}

/// Batch: outcomes of one kind, to be written in one transaction.
#[derive(Clone, Copy)]
enum Batch<'a> {
    Succeeded(&'a [Lease]),
    Unfinished(&'a [(Lease, Disposition)]),
}

/// Writes the outcomes of the claims of one queue to Postgres.
pub(crate) struct AckWriter {
    pub(crate) db: Db,
    pub(crate) queue: Queue,
    pub(crate) registry: ClaimRegistry,
    /// Slots of the queue. A slot is a permit for one claim, and is returned when the outcome of the claim has been
    /// written.
    pub(crate) slots: Arc<Semaphore>,
    /// Wake flag of the fetcher, raised when slots are free again.
    pub(crate) wake: Arc<Notify>,
}

impl Acknowledger {
    /// Returns the acknowledger and a future that writes the outcomes. The future must be spawned. It completes when
    /// the last clone of the acknowledger is dropped.
    pub(crate) fn new(writer: AckWriter) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let work = async move {
            let mut outcomes = Vec::with_capacity(MAX_BATCH);
            while receiver.recv_many(&mut outcomes, MAX_BATCH).await > 0 {
                writer.write(&outcomes).await;
                outcomes.clear();
            }
        };
        (Self { sender }, work)
    }

    /// Sends an outcome to the writer without waiting. The length of the channel is bounded by the number of claims:
    /// one per slot, and one suspect.
    pub(crate) fn submit(&self, claim: Arc<Claim>, outcome: Outcome) {
        claim.mark_handler_done();
        // The channel is closed only at the end of the process. The lease then expires, and the job runs again.
        let _closed = self.sender.send((claim, outcome));
    }
}

impl AckWriter {
    async fn write(&self, outcomes: &[(Arc<Claim>, Outcome)]) {
        let mut succeeded = Vec::new();
        let mut unfinished = Vec::new();
        for (claim, outcome) in outcomes {
            match outcome {
                Outcome::Succeeded => succeeded.push(claim.lease),
                Outcome::Unfinished(disposition) => {
                    unfinished.push((claim.lease, disposition.clone()));
                }
                Outcome::NothingToWrite => {}
            }
        }
        if !succeeded.is_empty() {
            self.retry_until_written(Batch::Succeeded(&succeeded)).await;
        }
        if !unfinished.is_empty() {
            self.settle(&unfinished).await;
        }
        self.registry.remove(outcomes.iter().map(|(claim, _)| &claim.lease));
        self.slots.add_permits(outcomes.iter().filter(|(claim, _)| claim.occupies_slot).count());
        self.wake.notify_one();
    }

    async fn settle(&self, unfinished: &[(Lease, Disposition)]) {
        match self.attempt(Batch::Unfinished(unfinished)).await {
            Ok(()) => {}
            Err(error) if error.is_transient() => {
                self.retry_until_written(Batch::Unfinished(unfinished)).await;
            }
            // Postgres rejected the batch because of one of its outcomes. Write each outcome in its own transaction, so
            // that the others are written.
            Err(_) => {
                for outcome in unfinished {
                    self.retry_until_written(Batch::Unfinished(std::slice::from_ref(outcome)))
                        .await;
                }
            }
        }
    }

    /// Writes the batch, and retries every 250 ms if that fails. Gives up at the fourth failure if that error is
    /// permanent, or at the first permanent error after it. The leases of these claims then expire, and the jobs run
    /// again.
    async fn retry_until_written(&self, batch: Batch<'_>) {
        let mut attempts = 0;
        while let Err(error) = self.attempt(batch).await {
            attempts += 1;
            if !error.is_transient() && attempts > 3 {
                let error = &error as &dyn std::error::Error;
                tracing::error!(
                    error,
                    "cannot write the outcomes of a batch of jobs to Postgres: giving up; the jobs run again after their leases expire"
                );
                return;
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    async fn attempt(&self, batch: Batch<'_>) -> domain::Result<()> {
        let tx = self.db.fleet().await?;
        let (sent, written) = match batch {
            Batch::Succeeded(leases) => {
                for org in organizations(leases.iter()) {
                    tx.emit(Event::jobs_changed(org));
                }
                (leases.len(), lease::finish(&tx, leases).await?)
            }
            Batch::Unfinished(unfinished) => {
                for org in organizations(unfinished.iter().map(|(lease, _)| lease)) {
                    tx.emit(Event::jobs_ready(org, self.queue));
                    tx.emit(Event::jobs_changed(org));
                }
                (unfinished.len(), lease::settle(&tx, unfinished).await?)
            }
        };
        tx.commit().await?;
        self.count_stale(sent as u64 - written);
        Ok(())
    }

    fn count_stale(&self, stale: u64) {
        if stale > 0 {
            tracing::warn!(
                jobs = stale,
                "discarded the stale outcomes of {stale} jobs: their claims had ended before"
            );
            metrics::counter!("sentryops_jobs_stale_total", "queue" => self.queue.as_str())
                .increment(stale);
        }
    }
}

fn organizations<'a>(leases: impl Iterator<Item = &'a Lease>) -> HashSet<OrganizationId> {
    leases.map(|lease| lease.org).collect()
}
