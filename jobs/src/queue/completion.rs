//! Telling Postgres how jobs ended: in batches, as large as they become while the last one is under way.
//!
//! Nothing is forgotten while the database is away: what has ended waits here, its lease is still renewed, and it is
//! told late. What a newer claim has taken over meanwhile is refused by the fence and counted.

use std::{collections::HashSet, sync::Arc, time::Duration};

use domain::{Db, base::event::Event, entity::OrganizationId, fleet::job::Queue};
use tokio::sync::{Notify, Semaphore, mpsc};

use crate::queue::{
    claims::{Claim, ClaimRegistry},
    lease::{self, Lease, Verdict},
};

/// So many jobs are told at a time.
const BATCH: usize = 1000;
/// Between attempts to reach a database that is away.
const PAUSE: Duration = Duration::from_millis(250);

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It was done.
    Done,
    /// It was not.
    Not(Verdict),
    /// Its handler has ended it already, or it is somebody else's by now: nothing to tell.
    Silent,
}

/// Takes how jobs ended from wherever they run.
#[derive(Debug, Clone)]
pub(crate) struct Settler {
    sender: mpsc::UnboundedSender<(Arc<Claim>, Ending)>,
}

/// What is told in one transaction.
#[derive(Clone, Copy)]
enum Batch<'a> {
    Done(&'a [Lease]),
    Not(&'a [(Lease, Verdict)]),
}

/// What a settler works with.
pub(crate) struct Desk {
    pub(crate) db: Db,
    pub(crate) queue: Queue,
    pub(crate) registry: ClaimRegistry,
    /// Places for claims; each is given back once its job has been told of.
    pub(crate) places: Arc<Semaphore>,
    /// Wakes the fetcher.
    pub(crate) wake: Arc<Notify>,
}

impl Settler {
    /// The settler, and its work: to be spawned, over when the last clone is dropped.
    pub(crate) fn new(desk: Desk) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, mut endings) = mpsc::unbounded_channel();
        let work = async move {
            let mut batch = Vec::with_capacity(BATCH);
            while endings.recv_many(&mut batch, BATCH).await > 0 {
                desk.tell(&batch).await;
                batch.clear();
            }
        };
        (Self { sender }, work)
    }

    /// Never waits; what is under way is bounded by the places for claims.
    pub(crate) fn end(&self, claim: Arc<Claim>, ending: Ending) {
        claim.end();
        // Closed only when the process ends; the lease then ends by itself.
        let _closed = self.sender.send((claim, ending));
    }
}

impl Desk {
    async fn tell(&self, batch: &[(Arc<Claim>, Ending)]) {
        let mut done = Vec::new();
        let mut settled = Vec::new();
        for (claim, ending) in batch {
            match ending {
                Ending::Done => done.push(claim.lease),
                Ending::Not(verdict) => settled.push((claim.lease, verdict.clone())),
                Ending::Silent => {}
            }
        }
        if !done.is_empty() {
            self.insist(Batch::Done(&done)).await;
        }
        if !settled.is_empty() {
            self.settle(&settled).await;
        }
        self.registry.forget(batch.iter().map(|(claim, _)| &claim.lease));
        self.places.add_permits(batch.iter().filter(|(claim, _)| claim.takes_place).count());
        self.wake.notify_one();
    }

    async fn settle(&self, settled: &[(Lease, Verdict)]) {
        match self.attempt(Batch::Not(settled)).await {
            Ok(()) => {}
            Err(error) if error.is_transient() => self.insist(Batch::Not(settled)).await,
            // One of them is in the way of the others: each by itself.
            Err(_) => {
                for one in settled {
                    self.insist(Batch::Not(std::slice::from_ref(one))).await;
                }
            }
        }
    }

    /// Until it is told, or turns out to be impossible: then the lease ends by itself and the job runs again.
    async fn insist(&self, batch: Batch<'_>) {
        let mut attempts = 0;
        while let Err(error) = self.attempt(batch).await {
            attempts += 1;
            if !error.is_transient() && attempts > 3 {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "the end of jobs could not be told: they will run again");
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn attempt(&self, batch: Batch<'_>) -> domain::Result<()> {
        let tx = self.db.fleet().await?;
        let (given, told) = match batch {
            Batch::Done(leases) => {
                for org in organizations(leases.iter()) {
                    tx.emit(Event::jobs(org));
                }
                (leases.len(), lease::finish(&tx, leases).await?)
            }
            Batch::Not(settled) => {
                for org in organizations(settled.iter().map(|(lease, _)| lease)) {
                    tx.emit(Event::ready(org, self.queue));
                    tx.emit(Event::jobs(org));
                }
                (settled.len(), lease::settle(&tx, settled).await?)
            }
        };
        tx.commit().await?;
        self.count_stale(given as u64 - told);
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
