//! Registry of the claims that this process holds, in memory. The claiming statement is in `claim`. A claim is the
//! right to run one job until the lease of the claim expires.

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
use state::{ClaimEvent, ClaimState, TimeLimit};

/// Claim of this process on a job.
#[derive(Debug)]
pub struct Claim {
    /// Identity of the claim, with its fencing token.
    pub lease: Lease,
    /// True if the claim occupies a slot (a permit of its queue). Only the claim of a suspect occupies none. A suspect
    /// is a job whose worker died while the job ran, and that has at most two attempts left.
    pub(crate) occupies_slot: bool,
    state: Mutex<ClaimState>,
    stop: CancellationToken,
}

impl Claim {
    fn new(lease: Lease, occupies_slot: bool) -> Self {
        let stop = CancellationToken::new();
        Self { lease, occupies_slot, state: Mutex::new(ClaimState::NEW), stop }
    }

    fn lock(&self) -> MutexGuard<'_, ClaimState> {
        // The state is a single plain value, so a panic in another thread cannot leave it half written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, event: ClaimEvent) {
        let mut state = self.lock();
        *state = state.transition(event);
    }

    /// Returns the current state, which may change immediately afterwards.
    pub(crate) fn state(&self) -> ClaimState {
        *self.lock()
    }

    /// Records the start of the handler, and its time limit.
    pub fn start(&self, timeout: Duration) {
        self.apply(ClaimEvent::Start(TimeLimit { started_at: Instant::now(), timeout }));
    }

    /// Signals the handler to stop. If the handler is signalled several times, the first reason counts.
    pub fn stop(&self, reason: Stop) {
        // Record the reason before cancelling, because the task that the token wakes reads the reason.
        self.apply(ClaimEvent::Stop(reason));
        self.stop.cancel();
    }

    /// Waits until the handler must stop, and returns the reason.
    pub async fn stopped(&self) -> Stop {
        self.stop.cancelled().await;
        self.state().stop().unwrap_or(Stop::Lost)
    }

    /// Completes the job inside the transaction that writes its effects, so that the effects happen exactly once even
    /// if the job runs twice. Call it before writing the effects: if the claim is lost, nothing has been written yet.
    ///
    /// # Errors
    /// `Conflict` if the claim is lost. The transaction must then be rolled back.
    pub async fn complete(&self, tx: &Tx) -> domain::Result<()> {
        // Recorded before the statement, because a missing row no longer means from now on that the claim is lost.
        self.apply(ClaimEvent::Complete);
        if lease::finish(tx, &[self.lease]).await? == 0 {
            return Err(Error::Conflict(
                "this worker no longer holds the claim on the job".to_owned(),
            ));
        }
        tx.emit(Event::jobs_changed(self.lease.org));
        self.apply(ClaimEvent::Finish);
        Ok(())
    }

    /// Records that the handler has returned, or will never start. The outcome is still to be written.
    pub(crate) fn mark_handler_done(&self) {
        self.apply(ClaimEvent::End);
    }
}

/// Registry of the claims of this process, by job id.
#[derive(Debug, Clone, Default)]
pub struct ClaimRegistry(Arc<Mutex<HashMap<JobId, Arc<Claim>>>>);

impl ClaimRegistry {
    fn lock(&self) -> MutexGuard<'_, HashMap<JobId, Arc<Claim>>> {
        // The map holds plain entries, so a panic in another thread cannot leave it half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a claim for each pair of a lease and a flag. The flag is true if the claim occupies a slot.
    pub(crate) fn add(&self, leases: impl Iterator<Item = (Lease, bool)>) -> Vec<Arc<Claim>> {
        let mut claims = self.lock();
        leases
            .map(|(lease, occupies_slot)| {
                let claim = Arc::new(Claim::new(lease, occupies_slot));
                claims.insert(lease.id, Arc::clone(&claim));
                claim
            })
            .collect()
    }

    /// Removes claims whose outcomes have been written. A newer claim on the same job stays registered.
    pub(crate) fn remove<'a>(&self, leases: impl Iterator<Item = &'a Lease>) {
        let mut claims = self.lock();
        for lease in leases {
            if claims.get(&lease.id).is_some_and(|claim| claim.lease == *lease) {
                claims.remove(&lease.id);
            }
        }
    }

    /// Returns the number of registered claims.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Signals all handlers to stop, for the same reason.
    pub fn stop_all(&self, reason: Stop) {
        for claim in self.lock().values() {
            claim.stop(reason);
        }
    }

    pub(super) fn all(&self) -> Vec<Arc<Claim>> {
        self.lock().values().cloned().collect()
    }
}
