//! A compliance run: all assets in operation, judged by every rule, in shards that any worker takes.
//!
//! A shard is a range of asset ids. It adds its counts to the run in the transaction that ends its job, so each counts
//! once however often it ran; whichever comes last closes the run. Retired and disposed assets are not judged.

use async_graphql::SimpleObject;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    asset::Asset,
    audit::Entry,
    db::{FromRow, Tx},
    directive::{authenticated, requires},
    error::{Error, Result},
    event::Event,
    id::{Entity, Id},
    listing::{Listing, Order},
    page::{Page, PageRequest, Place},
    permission::Permission,
    text::text_enum,
    viewer::Actor,
};

/// Assets of one shard.
const SHARD: i64 = 2_000;

text_enum! {
    /// Where a run is in its life.
    RunState in "compliance_run"."state" {
        /// No worker has begun.
        Queued = "QUEUED",
        /// Workers are at it.
        Running = "RUNNING",
        /// Every shard is done.
        Succeeded = "SUCCEEDED",
        /// A shard could not be done.
        Failed = "FAILED",
        /// Somebody ended it.
        Cancelled = "CANCELLED",
    }
}

impl RunState {
    /// Whether nothing will change any more.
    pub const fn has_ended(self) -> bool {
        match self {
            Self::Queued | Self::Running => false,
            Self::Succeeded | Self::Failed | Self::Cancelled => true,
        }
    }
}

text_enum! {
    /// What started a run.
    RunTrigger in "compliance_run"."trigger" {
        /// Somebody asked for it.
        Manual = "MANUAL",
        /// A schedule.
        Schedule = "SCHEDULE",
    }
}

/// One compliance run: its state and progress are for everybody signed in, its outcome takes `COMPLIANCE_READ`.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
#[graphql(name = "ComplianceRunRow", directive = authenticated::apply())]
pub struct Run {
    /// Its id.
    pub id: Id<Run>,
    /// Where it is in its life.
    pub state: RunState,
    /// What started it.
    pub trigger: RunTrigger,
    /// On whose behalf it runs.
    #[graphql(skip)]
    pub actor: Actor,
    /// Why it failed. Takes `COMPLIANCE_READ`.
    #[graphql(name = "reason", directive = requires::apply(Permission::ComplianceRead))]
    pub error: Option<String>,
    /// Assets judged so far. Takes `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(Permission::ComplianceRead))]
    pub assets: i32,
    /// Parts that it was split into.
    pub shards: i32,
    /// Parts that are done.
    pub shards_done: i32,
    /// Verdicts that are a pass. Takes `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(Permission::ComplianceRead))]
    pub passed: i32,
    /// Verdicts that are a failure. Takes `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(Permission::ComplianceRead))]
    pub failed: i32,
    /// Verdicts that a missing fact prevented. Takes `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(Permission::ComplianceRead))]
    pub not_assessed: i32,
    /// When it was started.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}

impl Entity for Run {
    const PREFIX: &'static str = "run";
    const NAME: &'static str = "compliance run";
    const KEY: &'static str = "compliance_run";
}

impl FromRow for Run {
    fn from_row(row: &Row) -> Result<Self> {
        let actor_id: Option<Uuid> = row.try_get("actor_id")?;
        Ok(Self {
            id: row.try_get("id")?,
            state: RunState::from_column(row.try_get("state")?)?,
            trigger: RunTrigger::from_column(row.try_get("trigger")?)?,
            actor: Actor::from_columns(row.try_get("actor_kind")?, actor_id)
                .ok_or(Error::Corrupt { table: "compliance_run", column: "actor_kind" })?,
            error: row.try_get("error")?,
            assets: row.try_get("assets")?,
            shards: row.try_get("shards")?,
            shards_done: row.try_get("shards_done")?,
            passed: row.try_get("passed")?,
            failed: row.try_get("failed")?,
            not_assessed: row.try_get("not_assessed")?,
            started_at: row.try_get("started_at")?,
            finished_at: row.try_get("finished_at")?,
        })
    }
}

/// A range of asset ids: above the first, up to and including the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssetRange {
    /// Above this one; absent: from the first.
    pub above: Option<Id<Asset>>,
    /// Up to this one; absent: to the last.
    pub up_to: Option<Id<Asset>>,
}

/// What the verdicts of some assets add up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Assets judged.
    pub assets: i32,
    /// Verdicts that are a pass.
    pub passed: i32,
    /// Verdicts that are a failure.
    pub failed: i32,
    /// Verdicts that a missing fact prevented.
    pub not_assessed: i32,
}

/// What a start found: a new run with its shards, or the run of the same idempotency key.
#[derive(Debug)]
pub enum Started {
    /// A new run, to be done by shards.
    New(Run, Vec<AssetRange>),
    /// The key has been used: this is what came of it.
    Before(Run),
}

const SELECT: &str = "SELECT id, state, trigger, actor_kind, actor_id, error, assets, shards, shards_done, passed, failed,
    not_assessed, started_at, finished_at FROM compliance_run";

impl Run {
    /// Starts a run of all assets in operation, for the transaction's actor. A key that the actor used before starts nothing.
    pub async fn start(
        tx: &Tx,
        trigger: RunTrigger,
        idempotency_key: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<Started> {
        if let Some(key) = idempotency_key
            && (key.is_empty() || key.chars().count() > 255 || key.contains('\0'))
        {
            return Err(Error::invalid("idempotencyKey", "must have 1 to 255 characters"));
        }
        let ranges = AssetRange::cut(tx, SHARD).await?;
        let (actor_kind, actor_id) = tx.origin().actor.columns();
        // Everybody has keys of their own, and so have schedules: nobody can use up another's.
        let whose = match trigger {
            RunTrigger::Schedule => "schedule".to_owned(),
            RunTrigger::Manual => format!("{actor_kind} {}", actor_id.unwrap_or_default()),
        };
        let idempotency_key = idempotency_key.map(|key| format!("{whose} {key}"));
        let id = Id::<Self>::new();
        let made = tx
            .exec(
                "INSERT INTO compliance_run (org_id, id, state, trigger, actor_kind, actor_id, idempotency_key, shards, started_at)
                 VALUES ($1, $2, 'QUEUED', $3, $4, $5, $6, $7, $8)
                 ON CONFLICT (org_id, idempotency_key) DO NOTHING",
                &[
                    &tx.org(),
                    &id,
                    &trigger.as_str(),
                    &actor_kind,
                    &actor_id,
                    &idempotency_key,
                    &i32::try_from(ranges.len()).unwrap_or(i32::MAX),
                    &now,
                ],
            )
            .await?;
        if made == 0 {
            let run = tx
                .one(&format!("{SELECT} WHERE idempotency_key = $1"), &[&idempotency_key])
                .await?;
            return Ok(Started::Before(run));
        }
        let run = Self::get(tx, id).await?;
        Entry::created(
            "compliance_run.started",
            id,
            &json!({ "trigger": trigger, "shards": run.shards }),
        )
        .record(tx, now)
        .await?;
        tx.emit(Event::changed(tx.org(), id));
        Ok(Started::New(run, ranges))
    }

    /// Notes that a worker has begun; `false` if there is nothing to do any more.
    pub async fn begin_shard(tx: &Tx, id: Id<Self>) -> Result<bool> {
        tx.exec(
            "UPDATE compliance_run SET state = 'RUNNING' WHERE id = $1 AND state = 'QUEUED'",
            &[&id],
        )
        .await?;
        Ok(!Self::get(tx, id).await?.state.has_ended())
    }

    /// Adds a shard's counts; whichever comes last closes the run. In the transaction that ends the shard's job.
    pub async fn close_shard(
        tx: &Tx,
        id: Id<Self>,
        counts: Counts,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let open = tx
            .opt::<Row>(
                "UPDATE compliance_run SET
                     shards_done = shards_done + 1, assets = assets + $2, passed = passed + $3,
                     failed = failed + $4, not_assessed = not_assessed + $5,
                     state = CASE WHEN shards_done + 1 = shards THEN 'SUCCEEDED' ELSE 'RUNNING' END,
                     finished_at = CASE WHEN shards_done + 1 = shards THEN $6::timestamptz END
                 WHERE id = $1 AND state IN ('QUEUED', 'RUNNING')
                 RETURNING state = 'SUCCEEDED' AS is_last",
                &[&id, &counts.assets, &counts.passed, &counts.failed, &counts.not_assessed, &now],
            )
            .await?;
        let Some(row) = open else { return Ok(()) }; // Ended meanwhile: nothing counts any more.
        if row.try_get("is_last")? {
            let run = Self::get(tx, id).await?;
            Entry::changed(
                "compliance_run.finished",
                id,
                json!({ "state": RunState::Running }),
                run.outcome(),
            )
            .record(tx, now)
            .await?;
        }
        tx.emit(Event::changed(tx.org(), id));
        Ok(())
    }

    /// Ends a run of which a shard will not be done.
    pub async fn fail(tx: &Tx, id: Id<Self>, reason: &str, now: DateTime<Utc>) -> Result<()> {
        let action = "compliance_run.failed";
        Self::end(tx, id, RunState::Failed, action, Some(reason), now).await.map(drop)
    }

    /// Ends a run before it is done; its remaining shards do nothing.
    ///
    /// # Errors
    /// `Conflict` if it has ended already.
    pub async fn cancel(tx: &Tx, id: Id<Self>, now: DateTime<Utc>) -> Result<Self> {
        let action = "compliance_run.cancelled";
        if !Self::end(tx, id, RunState::Cancelled, action, None, now).await? {
            let state = Self::get(tx, id).await?.state;
            return Err(Error::Conflict(format!(
                "the run has ended already: it is {}",
                state.as_str()
            )));
        }
        Self::get(tx, id).await
    }

    async fn end(
        tx: &Tx,
        id: Id<Self>,
        state: RunState,
        action: &'static str,
        reason: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<bool> {
        let before: Option<Row> = tx
            .opt(
                "WITH before AS (SELECT org_id, id, state FROM compliance_run
                                 WHERE id = $1 AND state IN ('QUEUED', 'RUNNING') FOR UPDATE)
                 UPDATE compliance_run AS run SET state = $2, error = $3, finished_at = $4
                 FROM before WHERE run.org_id = before.org_id AND run.id = before.id
                 RETURNING before.state",
                &[&id, &state.as_str(), &reason, &now],
            )
            .await?;
        let Some(before) = before else { return Ok(false) };
        let before = json!({ "state": before.try_get::<_, &str>("state")? });
        let after = json!({ "state": state, "error": reason });
        Entry::changed(action, id, before, after).record(tx, now).await?;
        tx.emit(Event::changed(tx.org(), id));
        Ok(true)
    }

    /// The run, or `None`.
    pub async fn find(tx: &Tx, id: Id<Self>) -> Result<Option<Self>> {
        tx.opt(&format!("{SELECT} WHERE id = $1"), &[&id]).await
    }

    /// The run.
    pub async fn get(tx: &Tx, id: Id<Self>) -> Result<Self> {
        Self::find(tx, id).await?.ok_or_else(|| Error::not_found(Self::NAME, id))
    }

    /// The organization's runs, newest first.
    pub async fn list(tx: &Tx, page: &PageRequest) -> Result<Page<Self>> {
        let newest_first = Order { column: None, id: "id", descending: true };
        Listing::default().page(tx, SELECT, newest_first, page).await
    }

    /// How many runs there are.
    pub async fn count(tx: &Tx) -> Result<i64> {
        Listing::default().count(tx, "compliance_run").await
    }

    /// Its place in the list.
    pub fn place(&self) -> Place {
        Place { value: String::new(), id: self.id.uuid() }
    }

    fn outcome(&self) -> serde_json::Value {
        json!({
            "state": self.state, "assets": self.assets, "passed": self.passed, "failed": self.failed,
            "notAssessed": self.not_assessed,
        })
    }
}

impl AssetRange {
    /// Ranges of `size` assets each that cover all there are, and those to come. At least one.
    async fn cut(tx: &Tx, size: i64) -> Result<Vec<Self>> {
        let ends: Vec<Row> = tx
            .all(
                "SELECT id FROM (SELECT id, row_number() OVER (ORDER BY id) AS place FROM asset) AS numbered
                 WHERE place % $1 = 0 ORDER BY id",
                &[&size],
            )
            .await?;
        let mut ranges = Vec::with_capacity(ends.len() + 1);
        let mut above = None;
        for end in &ends {
            let up_to = Some(end.try_get("id")?);
            ranges.push(Self { above, up_to });
            above = up_to;
        }
        ranges.push(Self { above, up_to: None });
        Ok(ranges)
    }
}

/// What two rules find in a range of assets in operation, each of them one verdict.
///
/// These two stand here as SQL until rules are data: `has-owner` (never without a verdict) and `disk-encryption`, whose
/// fact may be missing or be none.
pub async fn judge(tx: &Tx, range: AssetRange) -> Result<Counts> {
    let row: Row = tx
        .one(
            "SELECT count(*)::int AS assets,
                    (count(owner_id) + count(*) FILTER (WHERE attributes->'disk_encrypted' = 'true'))::int AS passed,
                    (count(*) FILTER (WHERE owner_id IS NULL)
                     + count(*) FILTER (WHERE attributes->'disk_encrypted' = 'false'))::int AS failed,
                    count(*) FILTER (WHERE (attributes->'disk_encrypted' IN ('true', 'false')) IS NOT TRUE)::int AS not_assessed
             FROM asset
             WHERE lifecycle_state NOT IN ('RETIRED', 'DISPOSED')
               AND ($1::uuid IS NULL OR id > $1) AND ($2::uuid IS NULL OR id <= $2)",
            &[&range.above, &range.up_to],
        )
        .await?;
    Ok(Counts {
        assets: row.try_get("assets")?,
        passed: row.try_get("passed")?,
        failed: row.try_get("failed")?,
        not_assessed: row.try_get("not_assessed")?,
    })
}
