//! Telling Postgres how jobs ended: in batches, as large as they become while the last one is under way.
//!
//! Nothing is forgotten while the database is away: what has ended waits here, its lease is still renewed, and it is
//! written late. What a newer claim has taken over meanwhile is refused by the fence and counted.

use std::{collections::HashSet, sync::Arc, time::Duration};

use domain::{Db, base::event::Event, entity::OrganizationId, fleet::job::Queue};
use tokio::sync::{Notify, Semaphore, mpsc};

use crate::queue::{
    claims::{Claim, ClaimRegistry},
    lease::{self, Disposition, Lease},
};

/// So many jobs are written at a time.
const BATCH: usize = 1000;
/// Between attempts to reach a database that is away.
const PAUSE: Duration = Duration::from_millis(250);

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was done.
    Done,
    /// It was not.
    Failed(Disposition),
    /// Its handler has ended it already, or it is somebody else's by now: nothing to write.
    AlreadySettled,
}

/// Takes how jobs ended from wherever they run.
#[derive(Debug, Clone)]
pub(crate) struct Acknowledger {
    sender: mpsc::UnboundedSender<(Arc<Claim>, Outcome)>,
}

/// What is written in one transaction.
#[derive(Clone, Copy)]
enum Batch<'a> {
    Done(&'a [Lease]),
    Failed(&'a [(Lease, Disposition)]),
}

/// What a acknowledger works with.
pub(crate) struct AckWriter {
    pub(crate) db: Db,
    pub(crate) queue: Queue,
    pub(crate) registry: ClaimRegistry,
    /// Places for claims; each is sent back once its job has been written of.
    pub(crate) slots: Arc<Semaphore>,
    /// Wakes the fetcher.
    pub(crate) wake: Arc<Notify>,
}

impl Acknowledger {
    /// The acknowledger, and its work: to be spawned, over when the last clone is dropped.
    pub(crate) fn new(writer: AckWriter) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, mut outcomes) = mpsc::unbounded_channel();
        let work = async move {
            let mut batch = Vec::with_capacity(BATCH);
            while outcomes.recv_many(&mut batch, BATCH).await > 0 {
                writer.write(&batch).await;
                batch.clear();
            }
        };
        (Self { sender }, work)
    }

    /// Never waits; what is under way is bounded by the slots for claims.
    pub(crate) fn end(&self, claim: Arc<Claim>, outcome: Outcome) {
        claim.end();
        // Closed only when the process ends; the lease then ends by itself.
        let _closed = self.sender.send((claim, outcome));
    }
}

impl AckWriter {
    async fn write(&self, batch: &[(Arc<Claim>, Outcome)]) {
        let mut done = Vec::new();
        let mut settled = Vec::new();
        for (claim, outcome) in batch {
            match outcome {
                Outcome::Done => done.push(claim.lease),
                Outcome::Failed(disposition) => settled.push((claim.lease, disposition.clone())),
                Outcome::AlreadySettled => {}
            }
        }
        if !done.is_empty() {
            self.retry_until_written(Batch::Done(&done)).await;
        }
        if !settled.is_empty() {
            self.settle(&settled).await;
        }
        self.registry.forget(batch.iter().map(|(claim, _)| &claim.lease));
        self.slots.add_permits(batch.iter().filter(|(claim, _)| claim.takes_slot).count());
        self.wake.notify_one();
    }

    async fn settle(&self, settled: &[(Lease, Disposition)]) {
        match self.attempt(Batch::Failed(settled)).await {
            Ok(()) => {}
            Err(error) if error.is_transient() => {
                self.retry_until_written(Batch::Failed(settled)).await
            }
            // One of them is in the way of the others: each by itself.
            Err(_) => {
                for one in settled {
                    self.retry_until_written(Batch::Failed(std::slice::from_ref(one))).await;
                }
            }
        }
    }

    /// Until it is written, or turns out to be impossible: then the lease ends by itself and the job runs again.
    async fn retry_until_written(&self, batch: Batch<'_>) {
        let mut attempts = 0;
        while let Err(error) = self.attempt(batch).await {
            attempts += 1;
            if !error.is_transient() && attempts > 3 {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "the end of jobs could not be written: they will run again");
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn attempt(&self, batch: Batch<'_>) -> domain::Result<()> {
        let tx = self.db.fleet().await?;
        let (sent, written) = match batch {
            Batch::Done(leases) => {
                for org in organizations(leases.iter()) {
                    tx.emit(Event::jobs(org));
                }
                (leases.len(), lease::finish(&tx, leases).await?)
            }
            Batch::Failed(settled) => {
                for org in organizations(settled.iter().map(|(lease, _)| lease)) {
                    tx.emit(Event::ready(org, self.queue));
                    tx.emit(Event::jobs(org));
                }
                (settled.len(), lease::settle(&tx, settled).await?)
            }
        };
        tx.commit().await?;
        self.count_stale(sent as u64 - written);
        Ok(())
    }

    fn count_stale(&self, stale: u64) {
        if stale > 0 {
            tracing::warn!(jobs = stale, "refused the results of {stale} stale claims");
            metrics::counter!("sentryops_jobs_stale_total", "queue" => self.queue.as_str())
                .increment(stale);
        }
    }
}

fn organizations<'a>(leases: impl Iterator<Item = &'a Lease>) -> HashSet<OrganizationId> {
    leases.map(|lease| lease.org).collect()
}
