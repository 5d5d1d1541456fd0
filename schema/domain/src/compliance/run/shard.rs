//! A shard of a run: a range of asset ids. Its assets are evaluated and counted in one transaction.

use std::{collections::HashSet, sync::Arc};

use chrono::{DateTime, Utc};
use serde_json::json;
use tokio_postgres::Row;

use super::{Run, Started};
use crate::{
    access::audit::Entry,
    base::{db::Tx, entity::RunId, error::Result, event::Event, run_state::RunState},
    compliance::{
        lock::PostureLock,
        posture::{evaluate::Evaluation, store, tally::Tally},
        range::{AssetRange, facts_in_range},
        rule::Ruleset,
        scope::AssetScope,
    },
    fleet::pending::{self, JobKind},
};

/// Maximum number of rounds of a run. A round is one pass over all shards with the same rules.
const MAX_ROUNDS: i16 = 20;

impl Run {
    /// Deletes the run's shard jobs that have not started, because they would do nothing.
    pub(super) async fn cancel_pending_shards(tx: &Tx, id: RunId) -> Result<()> {
        pending::cancel_of_subject(tx, JobKind::RUN_SHARD, &id.to_string()).await
    }

    /// Marks the run as running. Returns `false` if the shard has nothing to do, because the run has ended or is in
    /// another round.
    pub async fn begin_shard(tx: &Tx, id: RunId, round: i16) -> Result<bool> {
        tx.exec(
            "UPDATE compliance_run SET state = 'RUNNING' WHERE id = $1 AND state = 'QUEUED'",
            &[&id],
        )
        .await?;
        let run = Self::get(tx, id).await?;
        Ok(!run.state.has_ended() && run.round == round)
    }

    /// Evaluates the assets of a range and adds their tally to the run; the last shard ends the run. Executed in the
    /// transaction that completes the shard's job. If the rules have changed since the run started, the tally would mix
    /// old and new rules. The function then restarts the run and returns the restarted run. A shard of an earlier round
    /// does nothing.
    pub async fn evaluate_shard(
        tx: &Tx,
        id: RunId,
        round: i16,
        range: AssetRange,
        now: DateTime<Utc>,
    ) -> Result<Option<Started>> {
        let now = PostureLock::Shared.acquire(tx, now).await?;
        let run = Self::get(tx, id).await?;
        if run.state.has_ended() || run.round != round {
            return Ok(None);
        }
        let rules = Arc::new(Ruleset::ensure(tx, now).await?);
        if !run.uses_rules(tx, &rules).await? {
            return run.restart(tx, &rules, now).await;
        }
        let scope = AssetScope::from_column(run.scope.as_ref())?;
        let facts = facts_in_range(tx, &rules, range, scope.as_ref()).await?;
        let mut stored = store::in_range(tx, range).await?;
        if scope.is_some() {
            // `record` would delete the stored postures of assets that it does not evaluate.
            let in_scope: HashSet<_> = facts.iter().map(|facts| facts.asset).collect();
            stored.retain(|asset, _| in_scope.contains(asset));
        }
        let tally =
            Evaluation::load(tx, &rules, now).await?.record(tx, facts, stored, |_| None).await?;
        run.close_shard(tx, &rules, &tally, now).await?;
        Ok(None)
    }

    /// Returns true if the run uses these rules. Postgres compares the JSON values, because `jsonb` may return a number
    /// in another notation than was stored.
    async fn uses_rules(&self, tx: &Tx, rules: &Ruleset) -> Result<bool> {
        let sql = "SELECT rules = $2::jsonb AS same FROM compliance_run WHERE id = $1";
        let snapshot = rules.snapshot();
        Ok(snapshot == self.rules
            || tx.one::<Row>(sql, &[&self.id, &snapshot]).await?.try_get("same")?)
    }

    /// Restarts the run with these rules in the next round. The counts of opened and fixed findings are kept, because
    /// these findings did change.
    async fn restart(
        &self,
        tx: &Tx,
        rules: &Ruleset,
        now: DateTime<Utc>,
    ) -> Result<Option<Started>> {
        if self.round == MAX_ROUNDS {
            let reason = format!("the rules changed {MAX_ROUNDS} times during the run");
            Self::fail(tx, self.id, &reason, now).await?;
            return Ok(None);
        }
        let scope = AssetScope::from_column(self.scope.as_ref())?;
        let ranges = AssetRange::cut(tx, scope.as_ref(), rules).await?;
        let updated = tx
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
        if updated == 0 {
            return Ok(None); // Another shard has already restarted the run.
        }
        Self::cancel_pending_shards(tx, self.id).await?;
        let run = Self::get(tx, self.id).await?;
        let (before, after) = (json!({ "round": self.round }), json!({ "round": run.round }));
        Entry::changed("compliance_run.restarted", self.id, before, after).record(tx).await?;
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
        let updated_run: Option<Row> = tx
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
                    &tally.column(rules.iter().map(|rule| rule.slot)),
                    &now,
                    &self.round,
                ],
            )
            .await?;
        tx.emit(Event::changed(tx.org(), self.id));
        // If no row matched, the run has ended or restarted in the meantime. The new postures stay, but the tally does
        // not count.
        let Some(row) = updated_run else { return Ok(()) };
        if row.try_get("is_last")? {
            let run = Self::get(tx, self.id).await?;
            let before = json!({ "state": RunState::Running });
            Entry::changed("compliance_run.finished", self.id, before, run.outcome())
                .record(tx)
                .await?;
        }
        Ok(())
    }
}
