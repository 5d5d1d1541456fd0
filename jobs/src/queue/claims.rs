//! The claims of this process.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use domain::{Error, Tx, base::event::Event, entity::JobId};
use tokio_util::sync::CancellationToken;

use crate::queue::lease::{self, Lease};

mod state;

pub use state::Stop;
use state::{ClaimEvent, ClaimState, Term};

/// One claim of this process.
#[derive(Debug)]
pub struct Claim {
    /// The claim's identity.
    pub lease: Lease,
    /// Whether it takes one of the places for claims; a suspect has a place of its own.
    pub(crate) takes_slot: bool,
    state: Mutex<ClaimState>,
    stop: CancellationToken,
}

impl Claim {
    fn new(lease: Lease, takes_slot: bool) -> Self {
        let stop = CancellationToken::new();
        Self { lease, takes_slot, state: Mutex::new(ClaimState::NEW), stop }
    }

    fn lock(&self) -> MutexGuard<'_, ClaimState> {
        // One plain value: a panic elsewhere cannot leave it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, event: ClaimEvent) {
        let mut state = self.lock();
        *state = state.transition(event);
    }

    /// The state at this moment: it may be another at the next.
    pub(crate) fn state(&self) -> ClaimState {
        *self.lock()
    }

    /// Notes that the handler starts, and how long it may take.
    pub fn start(&self, timeout: Duration) {
        self.note(ClaimEvent::Start(Term { started_at: Instant::now(), timeout }));
    }

    /// Tells the handler to stop; the first reason counts.
    pub fn stop(&self, reason: Stop) {
        // The reason first: whoever wakes by the token reads it.
        self.note(ClaimEvent::Stop(reason));
        self.stop.cancel();
    }

    /// Resolves when the handler is to stop.
    pub async fn stopped(&self) -> Stop {
        self.stop.cancelled().await;
        self.state().stop().unwrap_or(Stop::Lost)
    }

    /// Ends the job inside the transaction that writes its effects, so that they happen once even when it runs twice.
    /// Call it before those writes: a claim that is lost changes nothing then.
    ///
    /// # Errors
    /// `Conflict` if the claim is somebody else's by now: the transaction must not be committed.
    pub async fn complete(&self, tx: &Tx) -> domain::Result<()> {
        // Before the statement: from now on a row that is gone is no lost claim.
        self.note(ClaimEvent::Complete);
        if lease::finish(tx, &[self.lease]).await? == 0 {
            return Err(Error::Conflict("another worker has taken this job over".to_owned()));
        }
        tx.emit(Event::jobs(self.lease.org));
        self.note(ClaimEvent::Finish);
        Ok(())
    }

    /// Notes that the handler has returned: what is missing is the statement that says so.
    pub(crate) fn end(&self) {
        self.note(ClaimEvent::End);
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
            .map(|(lease, takes_slot)| {
                let claim = Arc::new(Claim::new(lease, takes_slot));
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
