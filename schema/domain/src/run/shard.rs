//! A part of a run: a range of asset ids, judged and counted in one transaction.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Run, RunState, Scope, Tally, scope::ScopeValues};
use crate::{
    asset::Asset,
    audit::Entry,
    db::Tx,
    error::{Error, Result},
    event::Event,
    id::Id,
    posture::{Lock, look::Look, store},
    rule::{Facts, Ruleset},
};

/// Assets of one shard.
const SHARD: i64 = 2_000;

/// A range of asset ids: above the first, up to and including the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssetRange {
    /// Above this one; absent: from the first.
    pub above: Option<Id<Asset>>,
    /// Up to this one; absent: to the last.
    pub up_to: Option<Id<Asset>>,
}

impl AssetRange {
    /// Ranges of some thousand assets each that cover all there are, and those to come. At least one.
    ///
    /// # Errors
    /// `Invalid` for a scope that lets none through.
    pub(crate) async fn cut(tx: &Tx, scope: Option<&Scope>) -> Result<Vec<Self>> {
        let values = ScopeValues::of(scope);
        let (filter, params) = values.in_operation().into_sql();
        let sql = format!(
            "SELECT id FROM (SELECT id, row_number() OVER (ORDER BY id) AS place, count(*) OVER () AS total
                             FROM asset WHERE {filter}) AS numbered
             WHERE place % {SHARD} = 0 OR place = total ORDER BY id"
        );
        let mut ends: Vec<Row> = tx.all(&sql, &params).await?;
        if ends.is_empty() && scope.is_some() {
            let message =
                "lets no asset in operation through: retired and disposed ones are not judged";
            return Err(Error::invalid("scope", message));
        }
        ends.pop(); // The last range has no end.
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

    /// Ranges that cover everything.
    pub async fn all(tx: &Tx) -> Result<Vec<Self>> {
        Self::cut(tx, None).await
    }

    /// The same with ids where there are none: above all of them, up to one that nothing is above.
    pub(crate) fn bounds(self) -> (Uuid, Uuid) {
        (self.above.map_or(Uuid::nil(), Id::uuid), self.up_to.map_or(Uuid::max(), Id::uuid))
    }
}

/// What is known of the assets in operation in a range, within a scope.
pub(crate) async fn facts_in_range(
    tx: &Tx,
    rules: &Ruleset,
    range: AssetRange,
    scope: Option<&Scope>,
) -> Result<Vec<Facts>> {
    let values = ScopeValues::of(scope);
    let (above, up_to) = range.bounds();
    let mut listing = values.in_operation();
    listing.only("asset.id > ?", &above);
    listing.only("asset.id <= ?", &up_to);
    let (filter, params) = listing.into_sql();
    tx.all(&format!("{} WHERE {filter}", rules.select_facts()), &params).await
}

impl Run {
    /// Notes that a worker has begun; `false` if there is nothing to do any more.
    pub async fn begin_shard(tx: &Tx, id: Id<Self>) -> Result<bool> {
        tx.exec(
            "UPDATE compliance_run SET state = 'RUNNING' WHERE id = $1 AND state = 'QUEUED'",
            &[&id],
        )
        .await?;
        Ok(!Self::get(tx, id).await?.state.has_ended())
    }

    /// Judges the assets of a range and adds what that comes to; the last shard closes the run. In the transaction that ends
    /// the shard's job. A run whose rules are not those that count any more fails: its numbers would be of neither.
    pub async fn judge_shard(
        tx: &Tx,
        id: Id<Self>,
        range: AssetRange,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let now = Lock::Shared.take(tx, now).await?;
        let run = Self::get(tx, id).await?;
        if run.state.has_ended() {
            return Ok(());
        }
        let rules = Ruleset::ensure(tx, now).await?;
        if rules.snapshot() != run.rules {
            return Self::fail(tx, id, "rules changed while it was under way: start it again", now)
                .await;
        }
        let scope = Scope::from_column(run.scope.as_ref())?;
        let facts = facts_in_range(tx, &rules, range, scope.as_ref()).await?;
        let mut kept = store::in_range(tx, range).await?;
        if scope.is_some() {
            // What it was not asked to look at stays as it is.
            let looked_at: HashSet<_> = facts.iter().map(|facts| facts.asset).collect();
            kept.retain(|asset, _| looked_at.contains(asset));
        }
        let tally = Look::new(tx, &rules, now).await?.take(tx, &facts, kept, |_| None).await?;
        run.close_shard(tx, &rules, &tally, now).await
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
                 WHERE id = $1 AND state IN ('QUEUED', 'RUNNING')
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
                ],
            )
            .await?;
        tx.emit(Event::changed(tx.org(), self.id));
        let Some(row) = open else { return Ok(()) }; // Ended meanwhile: what it judged holds, but counts no more.
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
