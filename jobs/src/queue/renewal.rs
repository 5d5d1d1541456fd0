//! Lease renewal, on a separate thread with its own database connection.
//!
//! Leases must be renewed even while handlers keep every other thread busy and the connection pool is exhausted. If
//! renewal fails for two thirds of the lease duration, all jobs are stopped, before a lease can expire and another
//! worker can claim the job. A job that has not stopped when its time limit and the grace period have passed cannot be
//! stopped at all: its handler is a loop that never awaits. Its lease is no longer renewed, so another worker runs the
//! job again, and the process is signalled to exit.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use domain::Db;
use tokio_util::sync::CancellationToken;

use crate::queue::{
    claims::{Claim, ClaimRegistry, Stop},
    lease::{self, Lease},
};

/// Settings of leases and their renewal.
#[derive(Debug, Clone, Copy)]
pub struct LeaseConfig {
    /// Duration of a lease: time after which a claim expires unless its lease is renewed.
    pub lease: Duration,
    /// Interval between two renewals of a lease.
    pub renew_interval: Duration,
    /// Grace period: time that a handler may keep running after its time limit has passed and it was signalled to stop.
    pub grace: Duration,
}

impl Default for LeaseConfig {
    /// Returns a lease of 15 s, renewed every 3 s, and a grace period of 10 s. The jobs of a killed worker thus run
    /// again within 15 s and one tick of the maintenance.
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            renew_interval: Duration::from_secs(3),
            grace: Duration::from_secs(10),
        }
    }
}

/// Renews the leases until `stop` is cancelled. Run it on a separate thread, with a pool of one connection. Cancels
/// `stuck` when a handler has not stopped after its time limit and the grace period. The process must then exit.
pub async fn renew_leases(
    registry: &ClaimRegistry,
    db: &Db,
    config: LeaseConfig,
    stop: &CancellationToken,
    stuck: &CancellationToken,
) {
    let mut renewed_at = Instant::now();
    let mut tick = tokio::time::interval(config.renew_interval);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let claims: Vec<_> =
            registry.all().into_iter().filter(|claim| !is_stuck(claim, config, stuck)).collect();
        let remaining = (config.lease * 2 / 3).saturating_sub(renewed_at.elapsed());
        let started_at = Instant::now();
        match tokio::time::timeout(remaining, renew(db, &claims, config.lease)).await {
            Ok(Ok(())) => renewed_at = started_at,
            Ok(Err(error)) if renewed_at.elapsed() < config.lease * 2 / 3 => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot renew the leases of running jobs: retrying at the next interval"
                );
            }
            Ok(Err(_)) | Err(_) => {
                stop_all(&claims);
                renewed_at = Instant::now();
            }
        }
    }
}

/// Stops the jobs of these claims, because their leases are about to expire and other workers may claim the jobs.
fn stop_all(claims: &[Arc<Claim>]) {
    if !claims.is_empty() {
        tracing::error!(
            jobs = claims.len(),
            "could not renew leases for two thirds of their duration: stopping the jobs before other workers claim them"
        );
    }
    for claim in claims {
        claim.stop(Stop::Unrenewed);
    }
}

/// Returns true if the handler is still running although its time limit and the grace period have passed. In that case,
/// signals that the process is stuck.
fn is_stuck(claim: &Claim, config: LeaseConfig, stuck: &CancellationToken) -> bool {
    if !claim.state().is_overdue(Instant::now(), config.grace) {
        return false;
    }
    if !stuck.is_cancelled() {
        let id = claim.lease.id;
        tracing::error!(job.id = %id, "job {id} has not stopped after its time limit and grace period: this process must exit");
        stuck.cancel();
    }
    true
}

async fn renew(db: &Db, claims: &[Arc<Claim>], lease: Duration) -> domain::Result<()> {
    if claims.is_empty() {
        // Keep the connection open, so that the next renewal does not wait for a new one.
        return db.ping().await;
    }
    let leases: Vec<Lease> = claims.iter().map(|claim| claim.lease).collect();
    let tx = db.fleet().await?;
    let renewed = lease::renew(&tx, &leases, lease).await?;
    tx.commit().await?;
    let by_id: HashMap<_, _> = claims.iter().map(|claim| (claim.lease.id, claim)).collect();
    for renewed in renewed {
        let Some(claim) = by_id.get(&renewed.id) else { continue };
        if claim.state().may_have_completed() {
            continue;
        }
        if !renewed.is_held {
            tracing::warn!(
                job.id = %renewed.id,
                "the lease of job {} has expired: stopping the job in this process",
                renewed.id
            );
            claim.stop(Stop::Lost);
        } else if renewed.is_cancelling {
            claim.stop(Stop::Cancelled);
        }
    }
    Ok(())
}
