//! Jobs of postures: following changes between compliance runs.
//!
//! Whatever changes what rules read notes so in its transaction, and before its commit one job is asked for that follows it
//! ([`push_reevaluation`], the hook of `Db::before_commit`): one an organization, however much changes before it runs.

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

/// How often postures are compared with what a look at everything finds.
const VERIFY: TimeDelta = TimeDelta::days(1);

/// Judges anew what changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reevaluate {}

impl Job for Reevaluate {
    const QUEUE: Queue = Queue::Scan;
    const KIND: &'static str = JobKind::REEVALUATE.as_str();
    const ATTEMPTS: i16 = 20;
}

/// Judges anew what time alone changes now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flip {}

impl Job for Flip {
    const QUEUE: Queue = Queue::Scan;
    const KIND: &'static str = "scan.turn";
    const ATTEMPTS: i16 = 20;
}

/// Judges a range anew, because rules changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refresh {
    /// Its assets.
    pub range: AssetRange,
}

impl Job for Refresh {
    const QUEUE: Queue = Queue::Scan;
    const KIND: &'static str = JobKind::REFRESH.as_str();
    const ATTEMPTS: i16 = 20;
    const TIMEOUT: Duration = Duration::from_mins(5);
}

/// Compares all postures with what a look at everything finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verify {}

impl Job for Verify {
    const QUEUE: Queue = Queue::Upkeep;
    const KIND: &'static str = "scan.verify";
    const TIMEOUT: Duration = Duration::from_hours(1);
}

/// The database, where changes of what rules read are followed.
#[must_use]
pub fn reevaluating(db: Db) -> Db {
    db.before_commit(push_reevaluation)
}

/// Asks for a job that follows what this transaction changes; one that waits already is that job.
pub fn push_reevaluation(tx: &Tx) -> Pin<Box<dyn Future<Output = Result<()>> + Send + '_>> {
    Box::pin(push_reevaluation_of(tx, tx.org()))
}

/// Asks for following wherever something waits that nobody asked for: changes of people are made before an organization
/// is known.
pub async fn push_forgotten(tx: &Tx<Fleet>) -> Result<()> {
    for org in posture::due::waiting(tx).await? {
        push_reevaluation_of(tx, org).await?;
    }
    Ok(())
}

async fn push_reevaluation_of<K: Kind>(tx: &Tx<K>, org: OrganizationId) -> Result<()> {
    Push::new(&Reevaluate {}).key("follow").on_behalf(org, Actor::System).send(tx).await.map(drop)
}

/// Asks for a job when time alone changes a verdict next. After a look that may have brought that forward.
pub async fn push_flip(tx: &Tx) -> Result<()> {
    let Some(next) = posture::next_flip(tx).await? else { return Ok(()) };
    Push::new(&Flip {})
        .key("turn")
        .run_at(next)
        .on_behalf(tx.org(), Actor::System)
        .send(tx)
        .await?;
    Ok(())
}

/// Asks for a comparison a day from now wherever none is asked for.
pub async fn push_verify<K: Kind>(tx: &Tx<K>, now: DateTime<Utc>) -> Result<()> {
    for organization in Organization::all(tx).await? {
        let verify = Push::new(&Verify {}).key("verify").run_at(now + VERIFY);
        verify.on_behalf(organization.id, Actor::System).send(tx).await?;
    }
    Ok(())
}

/// Pushes what has to be done before all postures are judged anew, instead of what of it waits already.
pub async fn push_refresh(tx: &Tx, ranges: Vec<AssetRange>) -> Result<()> {
    if ranges.is_empty() {
        return Ok(());
    }
    posture::due::cancel_pending_refresh(tx).await?;
    let parts: Vec<_> = ranges.into_iter().map(|range| Refresh { range }).collect();
    push_all(tx, &parts).await
}
