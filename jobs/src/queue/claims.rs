//! The claims of this process, and how they are kept: a thread and a connection of their own.
//!
//! Renewal must go on while handlers keep every other thread busy and the pool is empty. What cannot be renewed is
//! stopped before its lease could end elsewhere: at two thirds of it. A job that does not stop when its time is up and
//! when it is told to (a loop that never awaits) cannot be stopped at all: its claim is let go, so that it counts as
//! crashed, and the process is told to end.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use domain::{Db, Error, Tx, base::event::Event, entity::JobId};
use tokio_util::sync::CancellationToken;

use crate::queue::lease::{self, Lease};

/// How leases are kept.
#[derive(Debug, Clone, Copy)]
pub struct LeaseConfig {
    /// How long a claim lasts unless renewed.
    pub lease: Duration,
    /// How often it is renewed.
    pub every: Duration,
    /// How long a job may go on after its time is up and it was told to stop.
    pub grace: Duration,
}

impl Default for LeaseConfig {
    /// A killed worker's jobs run again within the lease and one look of the reaper.
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            every: Duration::from_secs(3),
            grace: Duration::from_secs(10),
        }
    }
}

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
    started: OnceLock<(Instant, Duration)>,
    stop: CancellationToken,
    reason: OnceLock<Stop>,
    is_completing: AtomicBool,
    is_ending: AtomicBool,
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

    fn all(&self) -> Vec<Arc<Claim>> {
        self.lock().values().cloned().collect()
    }
}

/// Renews the claims until told to stop. To be run on a thread of its own, with a database of one connection. Cancels
/// `stuck` when a job does not stop although it must: the process cannot go on for long then.
pub async fn renew_leases(
    registry: &ClaimRegistry,
    db: &Db,
    config: LeaseConfig,
    stop: &CancellationToken,
    stuck: &CancellationToken,
) {
    let mut renewed_at = Instant::now();
    let mut tick = tokio::time::interval(config.every);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let claims: Vec<_> =
            registry.all().into_iter().filter(|claim| !is_stuck(claim, config, stuck)).collect();
        let left = (config.lease * 2 / 3).saturating_sub(renewed_at.elapsed());
        let asked_at = Instant::now();
        match tokio::time::timeout(left, renew(db, &claims, config.lease)).await {
            Ok(Ok(())) => renewed_at = asked_at,
            Ok(Err(error)) if renewed_at.elapsed() < config.lease * 2 / 3 => {
                tracing::warn!(error = &error as &dyn std::error::Error, "leases were not renewed");
            }
            Ok(Err(_)) | Err(_) => {
                give_up(&claims);
                renewed_at = Instant::now();
            }
        }
    }
}

/// Another worker may take them soon: none of them goes on here.
fn give_up(claims: &[Arc<Claim>]) {
    if !claims.is_empty() {
        tracing::error!(
            jobs = claims.len(),
            "leases could not be renewed in time: their jobs are stopped"
        );
    }
    for claim in claims {
        claim.stop(Stop::Unrenewed);
    }
}

/// Whether it goes on although its time is up and it was told so: it never awaits.
fn is_stuck(claim: &Claim, config: LeaseConfig, stuck: &CancellationToken) -> bool {
    let is_ending = claim.is_ending.load(Ordering::Acquire);
    let is_over =
        claim.started.get().is_some_and(|(at, timeout)| at.elapsed() > *timeout + config.grace);
    if is_ending || !is_over {
        return false;
    }
    if !stuck.is_cancelled() {
        let id = claim.lease.id;
        tracing::error!(job.id = %id, "job {id} does not stop: this process has to end");
        stuck.cancel();
    }
    true
}

async fn renew(db: &Db, claims: &[Arc<Claim>], lease: Duration) -> domain::Result<()> {
    if claims.is_empty() {
        // Keeps the connection warm: the next renewal must not wait for a new one.
        return db.ping().await;
    }
    let leases: Vec<Lease> = claims.iter().map(|claim| claim.lease).collect();
    let tx = db.fleet().await?;
    let renewed = lease::renew(&tx, &leases, lease).await?;
    tx.commit().await?;
    let by_id: HashMap<_, _> = claims.iter().map(|claim| (claim.lease.id, claim)).collect();
    for renewed in renewed {
        let Some(claim) = by_id.get(&renewed.id) else { continue };
        if claim.is_ending.load(Ordering::Acquire) || claim.is_completing.load(Ordering::Acquire) {
            continue; // Gone because it is done.
        }
        if !renewed.is_held {
            tracing::warn!(job.id = %renewed.id, "the lease of job {} is lost", renewed.id);
            claim.stop(Stop::Lost);
        } else if renewed.is_cancelling {
            claim.stop(Stop::Cancelled);
        }
    }
    Ok(())
}
