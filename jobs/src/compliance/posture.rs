//! Jobs that re-evaluate postures between compliance runs. A posture is all verdicts and the score of one asset.
//!
//! A transaction that changes the inputs of rules also records the change. Before the commit, the hook of
//! `Db::before_commit` ([`push_reevaluation`]) pushes one job that re-evaluates the recorded changes. At most one such
//! job per organization waits, regardless of the number of changes.

use std::{pin::Pin, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    Actor, Db, Result, Tx,
    access::organization::Organization,
    base::db::{Fleet, Kind},
    compliance::{posture, range::AssetRange},
    entity::OrganizationId,
    fleet::{job::Queue, pending::JobKind},
};
use serde::{Deserialize, Serialize};

use crate::{
    job::Job,
    queue::push::{Push, push_all},
};

/// Interval between two verifications of all postures.
const VERIFICATION_INTERVAL: TimeDelta = TimeDelta::days(1);

/// Re-evaluates the assets whose rule inputs changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reevaluate {}

impl Job for Reevaluate {
    const QUEUE: Queue = Queue::Scan;
    const KIND: &'static str = JobKind::REEVALUATE.as_str();
    const ATTEMPTS: i16 = 20;
}

/// Re-evaluates assets with a verdict that changed because time passed, without any change of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReevaluateFlips {}

impl Job for ReevaluateFlips {
    const QUEUE: Queue = Queue::Scan;
    const KIND: &'static str = "scan.turn";
    const ATTEMPTS: i16 = 20;
}

/// Re-evaluates a range of assets after rules changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refresh {
    /// Range of assets to re-evaluate.
    pub range: AssetRange,
}

impl Job for Refresh {
    const QUEUE: Queue = Queue::Scan;
    const KIND: &'static str = JobKind::REFRESH.as_str();
    const ATTEMPTS: i16 = 20;
    const TIMEOUT: Duration = Duration::from_mins(5);
}

/// Compares all stored postures of an organization with a full evaluation, and repairs the differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verify {}

impl Job for Verify {
    const QUEUE: Queue = Queue::Upkeep;
    const KIND: &'static str = "scan.verify";
    const TIMEOUT: Duration = Duration::from_hours(1);
}

/// Returns the database with a hook that pushes a re-evaluation job before the commit of a change to the inputs of
/// rules.
#[must_use]
pub fn with_reevaluation(db: Db) -> Db {
    db.before_commit(push_reevaluation)
}

/// Pushes a job that re-evaluates the changes that this transaction recorded. If such a job of the organization already
/// waits, pushes no second one.
pub fn push_reevaluation(tx: &Tx) -> Pin<Box<dyn Future<Output = Result<()>> + Send + '_>> {
    Box::pin(push_reevaluation_of(tx, tx.org()))
}

/// Pushes a re-evaluation job for each organization that has recorded changes but no such job. Changes to users are
/// made in transactions that belong to no organization, where the hook cannot push a job.
pub async fn push_missing_reevaluations(tx: &Tx<Fleet>) -> Result<()> {
    for org in posture::due::waiting(tx).await? {
        push_reevaluation_of(tx, org).await?;
    }
    Ok(())
}

async fn push_reevaluation_of<K: Kind>(tx: &Tx<K>, org: OrganizationId) -> Result<()> {
    Push::new(&Reevaluate {}).key("follow").on_behalf(org, Actor::System).send(tx).await.map(drop)
}

/// Pushes a job for the next time at which a verdict changes because time passes. Call it after every evaluation,
/// because an evaluation may bring that time forward.
pub async fn push_flip(tx: &Tx) -> Result<()> {
    let Some(next) = posture::next_flip(tx).await? else { return Ok(()) };
    Push::new(&ReevaluateFlips {})
        .key("turn")
        .run_at(next)
        .on_behalf(tx.org(), Actor::System)
        .send(tx)
        .await?;
    Ok(())
}

/// Pushes a verification of all postures for each organization, to run one day after `now`. Pushes none for an
/// organization in which a verification already waits.
pub async fn push_verify<K: Kind>(tx: &Tx<K>, now: DateTime<Utc>) -> Result<()> {
    for organization in Organization::all(tx).await? {
        let verify = Push::new(&Verify {}).key("verify").run_at(now + VERIFICATION_INTERVAL);
        verify.on_behalf(organization.id, Actor::System).send(tx).await?;
    }
    Ok(())
}

/// Pushes a refresh job for each range, in place of the refresh jobs of the organization that have not started. Does
/// nothing if `ranges` is empty.
pub async fn push_refresh(tx: &Tx, ranges: Vec<AssetRange>) -> Result<()> {
    if ranges.is_empty() {
        return Ok(());
    }
    posture::due::cancel_pending_refresh(tx).await?;
    let jobs: Vec<_> = ranges.into_iter().map(|range| Refresh { range }).collect();
    push_all(tx, &jobs).await
}
