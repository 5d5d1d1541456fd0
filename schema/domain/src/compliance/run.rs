//! A compliance run: all assets in operation, or those of a scope, are evaluated against every enabled rule. The run is
//! split into shards, which workers process in any order. `run/shard` evaluates one shard.
//!
//! A shard is a range of asset ids. Its tally is added to the run in the transaction that completes the shard's job, so
//! each shard counts once, however often the job was attempted. The last shard ends the run. A run stores the rules
//! that it uses. If the organization's rules have changed since, the next shard restarts the run in a new round. The
//! new round uses the new rules and new shards, and its counts of verdicts start at zero. Retired and disposed assets
//! are not evaluated.
//!
//! At most one run per scope is open (`QUEUED` or `RUNNING`). A caller who starts another run of the scope gets the
//! open run.

use async_graphql::SimpleObject;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    access::{
        audit::Entry,
        directive::{authenticated, requires},
        permission::Permission,
    },
    base::{
        actor::Actor,
        db::{FromRow, Tx},
        entity::{self, Entity, RunId},
        error::{Error, Result},
        event::Event,
        listing::{Listing, Order},
        page::{Page, PageRequest, Position},
        run_state::RunState,
        text::text_enum,
    },
    compliance::{
        range::AssetRange,
        rule::Ruleset,
        scope::{AssetScope, ScanScope},
    },
};

mod shard;

text_enum! {
    /// Origin of a compliance run: a caller or a schedule.
    RunTrigger in "compliance_run"."trigger" {
        /// A caller started the run.
        Manual = "MANUAL",
        /// A schedule started the run.
        Schedule = "SCHEDULE",
    }
}

/// A compliance run of all assets or of a scope. State and progress require only a signed-in caller; results require
/// `COMPLIANCE_READ`.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
#[graphql(name = "ComplianceRunRow", directive = authenticated::apply())]
pub struct Run {
    /// The run's id, beginning `run_`.
    pub id: RunId,
    /// Current state of the run.
    pub state: RunState,
    /// Origin of the run: a caller or a schedule.
    pub trigger: RunTrigger,
    /// The actor on whose behalf the run was started.
    #[graphql(skip)]
    pub actor: Actor,
    /// Filter for the evaluated assets, as canonical JSON; null for all assets in operation. Requires
    /// `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(Permission::ComplianceRead))]
    pub scope: Option<Value>,
    /// Reason why the run failed; null if the run has not failed. Requires `COMPLIANCE_READ`.
    #[graphql(name = "reason", directive = requires::apply(Permission::ComplianceRead))]
    pub error: Option<String>,
    /// Number of assets evaluated so far. Starts again from 0 when the run restarts because rules changed. Requires
    /// `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(Permission::ComplianceRead))]
    pub assets: i32,
    /// Number of shards: parts of the run that workers process independently.
    pub shards: i32,
    /// Number of processed shards. Starts again from 0 when the run restarts because rules changed.
    pub shards_done: i32,
    /// Number of `PASS` verdicts so far. Requires `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(Permission::ComplianceRead))]
    pub passed: i32,
    /// Number of `FAIL` verdicts without a waiver so far. Requires `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(Permission::ComplianceRead))]
    pub failed: i32,
    /// Number of waived `FAIL` verdicts so far. Requires `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(Permission::ComplianceRead))]
    pub waived: i32,
    /// Number of `NOT_ASSESSED` verdicts so far, for which a fact is missing. Requires `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(Permission::ComplianceRead))]
    pub not_assessed: i32,
    /// Number of `ERROR` verdicts so far: the rule could not be evaluated. Requires `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(Permission::ComplianceRead))]
    pub errors: i32,
    /// Number of findings that the run has opened so far. Requires `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(Permission::ComplianceRead))]
    pub opened: i32,
    /// Number of findings that the run has marked as fixed so far. Requires `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(Permission::ComplianceRead))]
    pub fixed: i32,
    /// The rules that the run uses, in the format of `Ruleset::snapshot`.
    #[graphql(skip)]
    pub rules: Value,
    /// Number of the current round. A round is one pass over all shards; the run restarts in the next round when rules
    /// change.
    #[graphql(skip)]
    pub round: i16,
    /// Time at which the run was started.
    pub started_at: DateTime<Utc>,
    /// Time at which the run ended; null while the run is open.
    pub finished_at: Option<DateTime<Utc>>,
}

impl FromRow for Run {
    fn from_row(row: &Row) -> Result<Self> {
        let actor_id: Option<Uuid> = row.try_get("actor_id")?;
        Ok(Self {
            id: row.try_get("id")?,
            state: RunState::from_column("compliance_run", row.try_get("state")?)?,
            trigger: RunTrigger::from_column(row.try_get("trigger")?)?,
            actor: Actor::from_columns(row.try_get("actor_kind")?, actor_id)
                .ok_or(Error::Corrupt { table: "compliance_run", column: "actor_kind" })?,
            scope: row.try_get("scope")?,
            error: row.try_get("error")?,
            assets: row.try_get("assets")?,
            shards: row.try_get("shards")?,
            shards_done: row.try_get("shards_done")?,
            passed: row.try_get("passed")?,
            failed: row.try_get("failed")?,
            waived: row.try_get("waived")?,
            not_assessed: row.try_get("not_assessed")?,
            errors: row.try_get("errors")?,
            opened: row.try_get("opened")?,
            fixed: row.try_get("fixed")?,
            rules: row.try_get("rules")?,
            round: row.try_get("round")?,
            started_at: row.try_get("started_at")?,
            finished_at: row.try_get("finished_at")?,
        })
    }
}

/// Result of starting a run: a new run, or the existing run with the same idempotency key, or the open run of the same
/// scope.
#[derive(Debug)]
pub enum Started {
    /// A new run, and the asset ranges of its shards.
    New(Box<Run>, Vec<AssetRange>),
    /// The existing run, in its current state.
    Existing(Run),
}

const SELECT: &str = "SELECT id, state, trigger, actor_kind, actor_id, scope, error, assets, shards, shards_done, passed,
    failed, waived, not_assessed, errors, opened, fixed, rules, round, started_at, finished_at FROM compliance_run";

impl Run {
    /// Starts a run of the assets in scope on behalf of the transaction's actor. Returns the existing run if the actor
    /// used the idempotency key before, or if a run of the same scope is open.
    pub async fn start(
        tx: &Tx,
        trigger: RunTrigger,
        scope: Option<&ScanScope>,
        idempotency_key: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<Started> {
        if let Some(key) = idempotency_key
            && (key.is_empty() || key.chars().count() > 255 || key.contains('\0'))
        {
            return Err(Error::invalid("idempotencyKey", "must have 1 to 255 characters"));
        }
        let scope = scope.map(ScanScope::check).transpose()?.flatten();
        let (actor_kind, actor_id) = tx.origin().actor.columns();
        // Keys are scoped to the actor, or to schedules, so that actors cannot occupy each other's keys.
        let key_owner = match trigger {
            RunTrigger::Schedule => "schedule".to_owned(),
            RunTrigger::Manual => format!("{actor_kind} {}", actor_id.unwrap_or_default()),
        };
        let idempotency_key = idempotency_key.map(|key| format!("{key_owner} {key}"));
        let scope_key = scope.as_ref().map_or_else(|| "all".to_owned(), AssetScope::key);
        if let Some(run) = Self::find_existing(tx, idempotency_key.as_deref(), &scope_key).await? {
            return Ok(Started::Existing(run));
        }
        if let Some(scope) = &scope
            && !scope.includes_any(tx).await?
        {
            let message =
                "matches no asset in operation; retired and disposed assets are not evaluated";
            return Err(Error::invalid("scope", message));
        }
        let rules = Ruleset::ensure(tx, now).await?;
        let ranges = AssetRange::cut(tx, scope.as_ref(), &rules).await?;
        let id = RunId::new();
        let inserted = tx
            .exec(
                "INSERT INTO compliance_run (org_id, id, state, trigger, actor_kind, actor_id, idempotency_key, scope, scope_key,
                                             rules, shards, started_at)
                 VALUES ($1, $2, 'QUEUED', $3, $4, $5, $6, $7, $8, $9, $10, $11)
                 ON CONFLICT DO NOTHING",
                &[
                    &tx.org(),
                    &id,
                    &trigger.as_str(),
                    &actor_kind,
                    &actor_id,
                    &idempotency_key,
                    &scope.as_ref().map(|scope| json!(scope)),
                    &scope_key,
                    &rules.snapshot(),
                    &i32::try_from(ranges.len()).unwrap_or(i32::MAX),
                    &now,
                ],
            )
            .await?;
        if inserted == 0 {
            // A concurrent transaction has started the run and committed. The insert waited for that commit, so the
            // next statement sees the run.
            let run = Self::find_existing(tx, idempotency_key.as_deref(), &scope_key).await?;
            return run.map(Started::Existing).ok_or_else(|| {
                Error::Conflict("a run of this scope has just ended; send the request again".into())
            });
        }
        let run = Self::get(tx, id).await?;
        Entry::created(
            "compliance_run.started",
            id,
            &json!({ "trigger": trigger, "scope": run.scope, "shards": run.shards }),
        )
        .record(tx)
        .await?;
        tx.emit(Event::changed(tx.org(), id));
        Ok(Started::New(Box::new(run), ranges))
    }

    /// Returns the run with this idempotency key; otherwise the open run of this scope, if one exists.
    async fn find_existing(
        tx: &Tx,
        idempotency_key: Option<&str>,
        scope_key: &str,
    ) -> Result<Option<Self>> {
        if let Some(key) = idempotency_key {
            let sql = format!("{SELECT} WHERE idempotency_key = $1");
            if let Some(run) = tx.opt::<Self>(&sql, &[&key]).await? {
                let scope = AssetScope::from_column(run.scope.as_ref())?;
                if scope.as_ref().map_or_else(|| "all".to_owned(), AssetScope::key) != scope_key {
                    let message = "the idempotency key was used for a run of another scope";
                    return Err(Error::Conflict(message.into()));
                }
                return Ok(Some(run));
            }
        }
        let sql = format!(
            "{SELECT} WHERE scope_key = $1 AND scope_key <> '' AND state IN ('QUEUED', 'RUNNING')"
        );
        tx.opt(&sql, &[&scope_key]).await
    }

    /// Marks a run as failed because one of its shards cannot be completed.
    pub async fn fail(tx: &Tx, id: RunId, reason: &str, now: DateTime<Utc>) -> Result<()> {
        let action = "compliance_run.failed";
        Self::finish(tx, id, RunState::Failed, action, Some(reason), now).await.map(drop)
    }

    /// Cancels an open run. Its remaining shards do nothing.
    ///
    /// # Errors
    /// `Conflict` if the run has ended already.
    pub async fn cancel(tx: &Tx, id: RunId, now: DateTime<Utc>) -> Result<Self> {
        let action = "compliance_run.cancelled";
        if !Self::finish(tx, id, RunState::Cancelled, action, None, now).await? {
            let state = Self::get(tx, id).await?.state;
            return Err(Error::Conflict(format!(
                "the run has ended already: it is {}",
                state.as_str()
            )));
        }
        Self::get(tx, id).await
    }

    async fn finish(
        tx: &Tx,
        id: RunId,
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
        Self::cancel_pending_shards(tx, id).await?;
        let before = json!({ "state": before.try_get::<_, &str>("state")? });
        let after = json!({ "state": state, "error": reason });
        Entry::changed(action, id, before, after).record(tx).await?;
        tx.emit(Event::changed(tx.org(), id));
        Ok(true)
    }

    /// Returns the run, or `None` if it does not exist.
    pub async fn find(tx: &Tx, id: RunId) -> Result<Option<Self>> {
        tx.opt(&format!("{SELECT} WHERE id = $1"), &[&id]).await
    }

    /// Returns the run; `NotFound` if it does not exist.
    pub async fn get(tx: &Tx, id: RunId) -> Result<Self> {
        Self::find(tx, id).await?.ok_or_else(|| Error::not_found(entity::Run::NAME, id))
    }

    /// Returns the runs with these ids, in no particular order. Unknown ids are ignored.
    pub async fn of_ids(tx: &Tx, ids: &[RunId]) -> Result<Vec<Self>> {
        tx.all(&format!("{SELECT} WHERE id = ANY($1)"), &[&ids]).await
    }

    /// Returns a page of the organization's runs, newest first.
    pub async fn list(tx: &Tx, page: &PageRequest) -> Result<Page<Self>> {
        let newest_first = Order { column: None, id: "id", descending: true };
        Listing::default().page(tx, SELECT, newest_first, page).await
    }

    /// Counts all runs of the organization.
    pub async fn count(tx: &Tx) -> Result<i64> {
        Listing::default().count(tx, "compliance_run").await
    }

    /// Returns the run's position in the list.
    pub fn position(&self) -> Position {
        Position { value: String::new(), id: self.id.uuid() }
    }

    fn outcome(&self) -> serde_json::Value {
        json!({
            "state": self.state, "assets": self.assets, "passed": self.passed, "failed": self.failed, "waived": self.waived,
            "notAssessed": self.not_assessed, "errors": self.errors, "opened": self.opened, "fixed": self.fixed,
        })
    }
}
