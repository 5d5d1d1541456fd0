//! A compliance run: all assets in operation, or those of a scope, judged by every rule, in shards that any worker takes.
//! (`run/shard`: judging a part of them.)
//!
//! A shard is a range of asset ids. It adds its tally to the run in the transaction that ends its job, so each counts
//! once however often it ran; whichever comes last closes the run. A run keeps by which rules it judges: a shard that
//! finds others begins it anew, and what was counted by then counts no more. Retired and disposed assets are not judged.
//!
//! There is one open run of each scope: who asks for another is given that.

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
    pub id: RunId,
    /// Where it is in its life.
    pub state: RunState,
    /// What started it.
    pub trigger: RunTrigger,
    /// On whose behalf it runs.
    #[graphql(skip)]
    pub actor: Actor,
    /// Which assets it is of; null: all in operation. Takes `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(Permission::ComplianceRead))]
    pub scope: Option<Value>,
    /// Why it failed. Takes `COMPLIANCE_READ`.
    #[graphql(name = "reason", directive = requires::apply(Permission::ComplianceRead))]
    pub error: Option<String>,
    /// Assets judged so far. Takes `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(Permission::ComplianceRead))]
    pub assets: i32,
    /// Parts that it was split into.
    pub shards: i32,
    /// Parts that are done: of those since it last began, as it begins anew when rules change.
    pub shards_done: i32,
    /// Verdicts that are a pass. Takes `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(Permission::ComplianceRead))]
    pub passed: i32,
    /// Verdicts that are a failure, without those that a waiver allows. Takes `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(Permission::ComplianceRead))]
    pub failed: i32,
    /// Failures that a waiver allows. Takes `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(Permission::ComplianceRead))]
    pub waived: i32,
    /// Verdicts that a missing fact prevented. Takes `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(Permission::ComplianceRead))]
    pub not_assessed: i32,
    /// Verdicts that something else prevented. Takes `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(Permission::ComplianceRead))]
    pub errors: i32,
    /// Findings that it opened. Takes `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(Permission::ComplianceRead))]
    pub opened: i32,
    /// Findings that it saw fixed. Takes `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(Permission::ComplianceRead))]
    pub fixed: i32,
    /// By which rules it judges, as `Ruleset::snapshot` wrote them.
    #[graphql(skip)]
    pub rules: Value,
    /// How often it has begun: anew whenever rules change before it ends.
    #[graphql(skip)]
    pub round: i16,
    /// When it was started.
    pub started_at: DateTime<Utc>,
    /// When it ended.
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

/// What a start found: a new run with its shards, or the run of the same idempotency key, or the open one of the same scope.
#[derive(Debug)]
pub enum Started {
    /// A run that begins, to be done by shards.
    New(Box<Run>, Vec<AssetRange>),
    /// It has been started before: this is what came of it.
    Existing(Run),
}

const SELECT: &str = "SELECT id, state, trigger, actor_kind, actor_id, scope, error, assets, shards, shards_done, passed,
    failed, waived, not_assessed, errors, opened, fixed, rules, round, started_at, finished_at FROM compliance_run";

impl Run {
    /// Starts a run of the assets in scope, for the transaction's actor. A key that the actor used before starts nothing,
    /// and neither does a scope that a run is at.
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
        // Everybody has keys of their own, and so have schedules: nobody can use up another's.
        let whose = match trigger {
            RunTrigger::Schedule => "schedule".to_owned(),
            RunTrigger::Manual => format!("{actor_kind} {}", actor_id.unwrap_or_default()),
        };
        let idempotency_key = idempotency_key.map(|key| format!("{whose} {key}"));
        let scope_key = scope.as_ref().map_or_else(|| "all".to_owned(), AssetScope::key);
        if let Some(run) = Self::started_before(tx, idempotency_key.as_deref(), &scope_key).await? {
            return Ok(Started::Existing(run));
        }
        if let Some(scope) = &scope
            && !scope.lets_any_through(tx).await?
        {
            let message =
                "lets no asset in operation through: retired and disposed ones are not judged";
            return Err(Error::invalid("scope", message));
        }
        let ranges = AssetRange::cut(tx, scope.as_ref()).await?;
        let rules = Ruleset::ensure(tx, now).await?;
        let id = RunId::new();
        let made = tx
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
        if made == 0 {
            // Somebody else's has just been committed: this statement waited for it, so the next sees it.
            let run = Self::started_before(tx, idempotency_key.as_deref(), &scope_key).await?;
            return run.map(Started::Existing).ok_or_else(|| {
                Error::Conflict("a run of this scope has just ended: ask again".into())
            });
        }
        let run = Self::get(tx, id).await?;
        Entry::created(
            "compliance_run.started",
            id,
            &json!({ "trigger": trigger, "scope": run.scope, "shards": run.shards }),
        )
        .record(tx, now)
        .await?;
        tx.emit(Event::changed(tx.org(), id));
        Ok(Started::New(Box::new(run), ranges))
    }

    /// The run of this key, or else the open one of this scope.
    async fn started_before(
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

    /// Ends a run of which a shard will not be done.
    pub async fn fail(tx: &Tx, id: RunId, reason: &str, now: DateTime<Utc>) -> Result<()> {
        let action = "compliance_run.failed";
        Self::end(tx, id, RunState::Failed, action, Some(reason), now).await.map(drop)
    }

    /// Ends a run before it is done; its remaining shards do nothing.
    ///
    /// # Errors
    /// `Conflict` if it has ended already.
    pub async fn cancel(tx: &Tx, id: RunId, now: DateTime<Utc>) -> Result<Self> {
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
        Entry::changed(action, id, before, after).record(tx, now).await?;
        tx.emit(Event::changed(tx.org(), id));
        Ok(true)
    }

    /// The run, or `None`.
    pub async fn find(tx: &Tx, id: RunId) -> Result<Option<Self>> {
        tx.opt(&format!("{SELECT} WHERE id = $1"), &[&id]).await
    }

    /// The run.
    pub async fn get(tx: &Tx, id: RunId) -> Result<Self> {
        Self::find(tx, id).await?.ok_or_else(|| Error::not_found(entity::Run::NAME, id))
    }

    /// Those that there are of these.
    pub async fn of_ids(tx: &Tx, ids: &[RunId]) -> Result<Vec<Self>> {
        tx.all(&format!("{SELECT} WHERE id = ANY($1)"), &[&ids]).await
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
