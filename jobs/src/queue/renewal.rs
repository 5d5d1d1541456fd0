//! How claims are kept: a thread and a connection of their own.
//!
//! Renewal must go on while handlers keep every other thread busy and the pool is empty. What cannot be renewed is
//! stopped before its lease could end elsewhere: at two thirds of it. A job that does not stop when its time is up and
//! when it is told to (a loop that never awaits) cannot be stopped at all: its claim is let go, so that it counts as
//! crashed, and the process is told to end.

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

/// Whether its handler goes on although its time is up and it was told so: it never awaits.
fn is_stuck(claim: &Claim, config: LeaseConfig, stuck: &CancellationToken) -> bool {
    if !claim.state().is_overdue(Instant::now(), config.grace) {
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
        if claim.state().may_be_done() {
            continue;
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
