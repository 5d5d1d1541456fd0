//! A part of a run: a range of asset ids, judged and counted in one transaction.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde_json::json;
use tokio_postgres::Row;

use super::{Run, Started};
use crate::{
    access::audit::Entry,
    base::{db::Tx, entity::RunId, error::Result, event::Event, run_state::RunState},
    compliance::{
        lock::Lock,
        posture::{evaluate::Evaluation, store, tally::Tally},
        range::{AssetRange, facts_in_range},
        rule::Ruleset,
        scope::AssetScope,
    },
    fleet::pending::{self, JobKind},
};

/// Times that a run begins at most.
const MAX_ROUNDS: i16 = 20;

impl Run {
    /// Takes back its shards that no worker has begun: they would do nothing.
    pub(super) async fn cancel_pending_shards(tx: &Tx, id: RunId) -> Result<()> {
        pending::cancel_of(tx, JobKind::RUN_SHARD, &id.to_string()).await
    }

    /// Notes that a worker has begun; `false` if there is nothing to do any more.
    pub async fn begin_shard(tx: &Tx, id: RunId, round: i16) -> Result<bool> {
        tx.exec(
            "UPDATE compliance_run SET state = 'RUNNING' WHERE id = $1 AND state = 'QUEUED'",
            &[&id],
        )
        .await?;
        let run = Self::get(tx, id).await?;
        Ok(!run.state.has_ended() && run.round == round)
    }

    /// Judges the assets of a range and adds what that comes to; the last shard closes the run. In the transaction that ends
    /// the shard's job. Where other rules count by now its numbers would be of neither: it begins anew, which is what is
    /// returned. A shard of a round that is over does nothing.
    pub async fn evaluate_shard(
        tx: &Tx,
        id: RunId,
        round: i16,
        range: AssetRange,
        now: DateTime<Utc>,
    ) -> Result<Option<Started>> {
        let now = Lock::Shared.take(tx, now).await?;
        let run = Self::get(tx, id).await?;
        if run.state.has_ended() || run.round != round {
            return Ok(None);
        }
        let rules = Ruleset::ensure(tx, now).await?;
        if !run.is_by(tx, &rules).await? {
            return run.restart(tx, &rules, now).await;
        }
        let scope = AssetScope::from_column(run.scope.as_ref())?;
        let facts = facts_in_range(tx, &rules, range, scope.as_ref()).await?;
        let mut kept = store::in_range(tx, range).await?;
        if scope.is_some() {
            // What it was not asked to look at stays as it is.
            let looked_at: HashSet<_> = facts.iter().map(|facts| facts.asset).collect();
            kept.retain(|asset, _| looked_at.contains(asset));
        }
        let tally =
            Evaluation::load(tx, &rules, now).await?.record(tx, &facts, kept, |_| None).await?;
        run.close_shard(tx, &rules, &tally, now).await?;
        Ok(None)
    }

    /// Whether these are the rules by which it judges. Postgres compares: it may keep a number in other words than ours.
    async fn is_by(&self, tx: &Tx, rules: &Ruleset) -> Result<bool> {
        let sql = "SELECT rules = $2::jsonb AS same FROM compliance_run WHERE id = $1";
        let snapshot = rules.snapshot();
        Ok(snapshot == self.rules
            || tx.one::<Row>(sql, &[&self.id, &snapshot]).await?.try_get("same")?)
    }

    /// What it opened and saw fixed stays counted: that did happen.
    async fn restart(
        &self,
        tx: &Tx,
        rules: &Ruleset,
        now: DateTime<Utc>,
    ) -> Result<Option<Started>> {
        if self.round == MAX_ROUNDS {
            let reason = format!("rules changed {MAX_ROUNDS} times while it was under way");
            Self::fail(tx, self.id, &reason, now).await?;
            return Ok(None);
        }
        let ranges =
            AssetRange::cut(tx, AssetScope::from_column(self.scope.as_ref())?.as_ref()).await?;
        let begun = tx
            .exec(
                "UPDATE compliance_run SET
                     round = round + 1, rules = $3, shards = $4, shards_done = 0, assets = 0, passed = 0, failed = 0,
                     waived = 0, not_assessed = 0, errors = 0, scored = 0, score_sum = 0, passed_weight = 0,
                     failed_weight = 0, waived_weight = 0, whole_weight = 0, tallies = '{}'
                 WHERE id = $1 AND round = $2 AND state IN ('QUEUED', 'RUNNING')",
                &[
                    &self.id,
                    &self.round,
                    &rules.snapshot(),
                    &i32::try_from(ranges.len()).unwrap_or(i32::MAX),
                ],
            )
            .await?;
        if begun == 0 {
            return Ok(None); // Another of its shards was first.
        }
        Self::cancel_pending_shards(tx, self.id).await?;
        let run = Self::get(tx, self.id).await?;
        let (before, after) = (json!({ "round": self.round }), json!({ "round": run.round }));
        Entry::changed("compliance_run.restarted", self.id, before, after).record(tx, now).await?;
        tx.emit(Event::changed(tx.org(), self.id));
        Ok(Some(Started::New(Box::new(run), ranges)))
    }

    async fn close_shard(
        &self,
        tx: &Tx,
        rules: &Ruleset,
        tally: &Tally,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let [passed, failed, waived, not_assessed, errors] = tally.totals();
        let open: Option<Row> = tx
            .opt(
                "UPDATE compliance_run SET
                     shards_done = shards_done + 1, assets = assets + $2::bigint, passed = passed + $3, failed = failed + $4,
                     waived = waived + $5, not_assessed = not_assessed + $6, errors = errors + $7, opened = opened + $8,
                     fixed = fixed + $9, scored = scored + $10::bigint, score_sum = score_sum + $11,
                     passed_weight = passed_weight + $12, failed_weight = failed_weight + $13,
                     waived_weight = waived_weight + $14, whole_weight = whole_weight + $15,
                     tallies = ARRAY(SELECT coalesce(old, 0) + new FROM UNNEST(tallies, $16::int[]) AS pair (old, new)),
                     judged_at = GREATEST(judged_at, $17),
                     state = CASE WHEN shards_done + 1 = shards THEN 'SUCCEEDED' ELSE 'RUNNING' END,
                     finished_at = CASE WHEN shards_done + 1 = shards THEN GREATEST(judged_at, $17) END
                 WHERE id = $1 AND round = $18 AND state IN ('QUEUED', 'RUNNING')
                 RETURNING state = 'SUCCEEDED' AS is_last",
                &[
                    &self.id,
                    &tally.sums.assets,
                    &passed,
                    &failed,
                    &waived,
                    &not_assessed,
                    &errors,
                    &tally.opened,
                    &tally.fixed,
                    &tally.sums.scored,
                    &tally.sums.score_sum,
                    &tally.sums.passed_weight,
                    &tally.sums.failed_weight,
                    &tally.sums.waived_weight,
                    &tally.sums.whole_weight,
                    &tally.column(rules.iter().map(|ruled| ruled.slot)),
                    &now,
                    &self.round,
                ],
            )
            .await?;
        tx.emit(Event::changed(tx.org(), self.id));
        let Some(row) = open else { return Ok(()) }; // Ended or begun anew meanwhile: what it judged holds, but counts no more.
        if row.try_get("is_last")? {
            let run = Self::get(tx, self.id).await?;
            let before = json!({ "state": RunState::Running });
            Entry::changed("compliance_run.finished", self.id, before, run.outcome())
                .record(tx, now)
                .await?;
        }
        Ok(())
    }
}
