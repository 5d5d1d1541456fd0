//! Jobs of compliance runs, and of following changes between them.
//!
//! Whatever changes what rules read notes so in its transaction, and before its commit one job is asked for that follows it
//! ([`follow`], which `Db::following` calls): one an organization, however much changes before it runs.

use std::{pin::Pin, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    Actor, Db, Result, Tx,
    access::{organization::Organization, permission::Permission},
    compliance::{
        posture,
        range::AssetRange,
        run::{Run, Started},
    },
    entity::{OrganizationId, RunId},
    fleet::{job::Queue, pending::Kind},
};
use serde::{Deserialize, Serialize};

use crate::{Job, Push, push_all};

/// How often postures are compared with what a look at everything finds.
const VERIFY: TimeDelta = TimeDelta::days(1);

/// Judges one range of a run's assets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanShard {
    /// The run.
    pub run: RunId,
    /// Which of its rounds: others are over.
    #[serde(default = "first_round")]
    pub round: i16,
    /// Its assets.
    pub range: AssetRange,
}

const fn first_round() -> i16 {
    1
}

impl Job for ScanShard {
    const QUEUE: Queue = Queue::Scan;
    const KIND: &'static str = Kind::RUN_SHARD.as_str();
    /// A worker of before judges by two rules and keeps no posture.
    const VERSION: i16 = 2;
    const READS: &'static [i16] = &[1, 2];
    const TIMEOUT: Duration = Duration::from_mins(5);
    const PERMISSION: Option<Permission> = Some(Permission::ComplianceRun);
    const WATCHED: bool = true;

    fn subject(&self) -> Option<String> {
        Some(self.run.to_string())
    }
}

/// Judges anew what changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Follow {}

impl Job for Follow {
    const QUEUE: Queue = Queue::Scan;
    const KIND: &'static str = Kind::REEVALUATE.as_str();
    const ATTEMPTS: i16 = 20;
}

/// Judges anew what time alone changes now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {}

impl Job for Turn {
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
    const KIND: &'static str = Kind::REFRESH.as_str();
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
pub fn following(db: Db) -> Db {
    db.following(follow)
}

/// Asks for a job that follows what this transaction changes; one that waits already is that job.
pub fn follow(tx: &Tx) -> Pin<Box<dyn Future<Output = Result<()>> + Send + '_>> {
    Box::pin(push_follow_of(tx, tx.org()))
}

/// Asks for following wherever something waits that nobody asked for: changes of people are made before an organization
/// is known. In a transaction of `Db::fleet`.
pub async fn push_forgotten(tx: &Tx) -> Result<()> {
    for org in posture::due::waiting(tx).await? {
        push_follow_of(tx, org).await?;
    }
    Ok(())
}

async fn push_follow_of(tx: &Tx, org: OrganizationId) -> Result<()> {
    Push::new(&Follow {}).key("follow").on_behalf(org, Actor::System).send(tx).await.map(drop)
}

/// Asks for a job when time alone changes a verdict next. After a look that may have brought that forward.
pub async fn push_turn(tx: &Tx) -> Result<()> {
    let Some(next) = posture::next_turn(tx).await? else { return Ok(()) };
    Push::new(&Turn {})
        .key("turn")
        .run_at(next)
        .on_behalf(tx.org(), Actor::System)
        .send(tx)
        .await?;
    Ok(())
}

/// Asks for a comparison a day from now wherever none is asked for. In a transaction of `Db::fleet`.
pub async fn push_verify(tx: &Tx, now: DateTime<Utc>) -> Result<()> {
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
    posture::due::take_back_refresh(tx).await?;
    let parts: Vec<_> = ranges.into_iter().map(|range| Refresh { range }).collect();
    push_all(tx, &parts).await
}

/// Pushes the shards of a run that begins; of one that was started before, nothing.
pub async fn push_shards(tx: &Tx, started: Started) -> Result<Run> {
    match started {
        Started::Before(run) => Ok(run),
        Started::New(run, ranges) => {
            let shards: Vec<_> = ranges
                .into_iter()
                .map(|range| ScanShard { run: run.id, round: run.round, range })
                .collect();
            push_all(tx, &shards).await?;
            Ok(*run)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kinds_that_the_domain_asks_for_are_those_that_are_pushed() {
        let pushed = [ScanShard::KIND, Follow::KIND, Refresh::KIND];
        assert_eq!(pushed, [Kind::RUN_SHARD, Kind::REEVALUATE, Kind::REFRESH].map(Kind::as_str));
        // Jobs of earlier versions wait under these.
        assert_eq!(pushed, ["scan.shard", "scan.follow", "scan.refresh"]);
    }
}
