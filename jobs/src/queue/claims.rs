//! The claims of this process.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use domain::{Error, Tx, base::event::Event, entity::JobId};
use tokio_util::sync::CancellationToken;

use crate::queue::lease::{self, Lease};

/// Why a job is to stop before it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Its claim is somebody else's.
    Lost,
    /// Its claim could not be renewed, and may soon be somebody else's.
    Unrenewed,
    /// Somebody wants it ended.
    Cancelled,
    /// The process ends.
    Shutdown,
}

/// One claim of this process.
#[derive(Debug)]
pub struct Claim {
    /// The claim.
    pub lease: Lease,
    /// Whether it takes one of the places for claims; a suspect has a place of its own.
    pub(crate) takes_place: bool,
    pub(super) started: OnceLock<(Instant, Duration)>,
    stop: CancellationToken,
    reason: OnceLock<Stop>,
    pub(super) is_completing: AtomicBool,
    pub(super) is_ending: AtomicBool,
    is_finished: AtomicBool,
}

impl Claim {
    fn new(lease: Lease, takes_place: bool) -> Self {
        Self {
            lease,
            takes_place,
            started: OnceLock::new(),
            stop: CancellationToken::new(),
            reason: OnceLock::new(),
            is_completing: AtomicBool::new(false),
            is_ending: AtomicBool::new(false),
            is_finished: AtomicBool::new(false),
        }
    }

    /// Its handler starts, and may take so long.
    pub fn start(&self, timeout: Duration) {
        // A claim is started once.
        let _already = self.started.set((Instant::now(), timeout));
    }

    /// Tells its handler to stop; the first reason counts.
    pub fn stop(&self, reason: Stop) {
        let _already = self.reason.set(reason);
        self.stop.cancel();
    }

    /// Resolves when the handler is to stop.
    pub async fn stopped(&self) -> Stop {
        self.stop.cancelled().await;
        self.reason.get().copied().unwrap_or(Stop::Lost)
    }

    /// Ends the job inside the transaction that writes its effects, so that they happen once even when it runs twice.
    /// Call it before those writes: a claim that is lost changes nothing then.
    ///
    /// # Errors
    /// `Conflict` if the claim is somebody else's by now: the transaction must not be committed.
    pub async fn complete(&self, tx: &Tx) -> domain::Result<()> {
        self.is_completing.store(true, Ordering::Release);
        if lease::finish(tx, &[self.lease]).await? == 0 {
            return Err(Error::Conflict("another worker has taken this job over".to_owned()));
        }
        tx.emit(Event::jobs(self.lease.org));
        self.is_finished.store(true, Ordering::Release);
        Ok(())
    }

    /// That transaction came to nothing.
    pub(crate) fn not_finished(&self) {
        self.is_finished.store(false, Ordering::Release);
    }

    /// Whether its handler ended it in its own transaction.
    pub(crate) fn is_finished(&self) -> bool {
        self.is_finished.load(Ordering::Acquire)
    }

    /// Its handler has returned; what is missing is the statement that says so.
    pub(crate) fn ending(&self) {
        self.is_ending.store(true, Ordering::Release);
    }
}

/// All claims of this process.
#[derive(Debug, Clone, Default)]
pub struct ClaimRegistry(Arc<Mutex<HashMap<JobId, Arc<Claim>>>>);

impl ClaimRegistry {
    fn lock(&self) -> MutexGuard<'_, HashMap<JobId, Arc<Claim>>> {
        // A map of plain entries: a panic elsewhere cannot leave it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of claims.
    pub(crate) fn add(&self, leases: impl Iterator<Item = (Lease, bool)>) -> Vec<Arc<Claim>> {
        let mut claims = self.lock();
        leases
            .map(|(lease, takes_place)| {
                let claim = Arc::new(Claim::new(lease, takes_place));
                claims.insert(lease.id, Arc::clone(&claim));
                claim
            })
            .collect()
    }

    /// Forgets claims that have ended; not those that were claimed anew meanwhile.
    pub(crate) fn forget<'a>(&self, leases: impl Iterator<Item = &'a Lease>) {
        let mut claims = self.lock();
        for lease in leases {
            if claims.get(&lease.id).is_some_and(|claim| claim.lease == *lease) {
                claims.remove(&lease.id);
            }
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Tells all handlers to stop.
    pub fn stop_all(&self, reason: Stop) {
        for claim in self.lock().values() {
            claim.stop(reason);
        }
    }

    pub(super) fn all(&self) -> Vec<Arc<Claim>> {
        self.lock().values().cloned().collect()
    }
}
