//! Re-evaluation of assets after a change, and when a flip is due: an expected change of a verdict although no fact
//! changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use tokio_postgres::Row;

use super::{
    due,
    evaluate::{ChangedNames, Evaluation},
    store,
};
use crate::{
    base::{
        db::Tx,
        entity::{AssetId, UserId},
        error::Result,
        stale::{self, Subject},
    },
    compliance::{
        lock::PostureLock,
        range::{AssetRange, facts_in_range},
        rule::{Facts, Ruleset},
    },
    inventory::asset::LifecycleState,
};

/// Maximum number of assets of an owner to re-evaluate one by one. If an owner has more, all assets are refreshed.
const MAX_OWNED: i64 = 2_000;

/// Work that remains after one call of [`reevaluate`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RemainingWork {
    /// True if more changes may be waiting.
    pub has_more: bool,
    /// Ranges to re-evaluate with [`refresh`]; empty unless a change affects all assets, or the owner of more than
    /// 2,000 assets.
    pub refresh_ranges: Vec<AssetRange>,
}

/// Re-evaluates the assets that changed: up to 2,000 changes per call, or fewer if the rules cost much.
pub async fn reevaluate(tx: &Tx, now: DateTime<Utc>) -> Result<RemainingWork> {
    let now = PostureLock::Exclusive.acquire(tx, now).await?;
    let rules = Arc::new(Ruleset::ensure(tx, now).await?);
    let batch = rules.batch_size();
    let due: Vec<Row> = tx
        .all(
            "DELETE FROM posture_due USING (SELECT id FROM posture_due ORDER BY id LIMIT $1) AS first
             WHERE posture_due.id = first.id
             RETURNING posture_due.asset_id, posture_due.owner_id, posture_due.reads",
            &[&batch],
        )
        .await?;
    let mut remaining = RemainingWork {
        has_more: i64::try_from(due.len()).is_ok_and(|count| count >= batch),
        refresh_ranges: Vec::new(),
    };
    let mut changed: BTreeMap<AssetId, ChangedNames> = BTreeMap::new();
    let mut is_refresh_needed = false;
    for row in &due {
        let names: Option<Vec<String>> = row.try_get("reads")?;
        let names: ChangedNames = names.map(BTreeSet::from_iter);
        if let Some(asset) = row.try_get("asset_id")? {
            merge(&mut changed, asset, &names);
        } else if let Some(owner) = row.try_get("owner_id")? {
            let owned = owned_by(tx, owner).await?;
            let count = i64::try_from(owned.len()).unwrap_or(i64::MAX);
            if count > MAX_OWNED {
                is_refresh_needed = true;
            } else if i64::try_from(changed.len()).unwrap_or(i64::MAX).saturating_add(count) > batch
            {
                // Too many for this transaction, together with those before: each asset gets a mark of its own, and the next calls take them.
                let reads = names.map(|names| names.into_iter().collect::<Vec<_>>());
                let marks = owned.into_iter().map(|asset| (Subject::Asset(asset), reads.clone()));
                stale::mark(tx, &marks.collect::<Vec<_>>()).await?;
                remaining.has_more = true;
            } else {
                for asset in owned {
                    merge(&mut changed, asset, &names);
                }
            }
        } else {
            is_refresh_needed = true;
        }
    }
    evaluate(tx, &rules, &changed, is_refresh_needed, now).await?;
    if is_refresh_needed {
        remaining.refresh_ranges = AssetRange::cut(tx, None, &rules).await?;
    }
    Ok(remaining)
}

/// Re-evaluates assets with a flip that is due: at most 2,000 assets per call, or fewer if the rules cost much. If more
/// are left, [`next_flip`] returns a time that is not in the future.
pub async fn reevaluate_flips(tx: &Tx, now: DateTime<Utc>) -> Result<()> {
    let now = PostureLock::Exclusive.acquire(tx, now).await?;
    let rules = Arc::new(Ruleset::ensure(tx, now).await?);
    let sql = "SELECT asset_id FROM posture WHERE flips_at <= $1 ORDER BY flips_at LIMIT $2";
    let flipped: Vec<Row> = tx.all(sql, &[&now, &rules.batch_size()]).await?;
    let mut changed = BTreeMap::new();
    for row in &flipped {
        changed.insert(row.try_get("asset_id")?, None);
    }
    evaluate(tx, &rules, &changed, false, now).await
}

/// Returns the time of the earliest flip in the organization; `None` if no flip is expected.
pub async fn next_flip(tx: &Tx) -> Result<Option<DateTime<Utc>>> {
    let row: Row = tx.one("SELECT min(flips_at) AS next FROM posture", &[]).await?;
    Ok(row.try_get("next")?)
}

/// Re-evaluates all assets of a range with the current rules and waivers.
pub async fn refresh(tx: &Tx, range: AssetRange, now: DateTime<Utc>) -> Result<()> {
    let now = PostureLock::Shared.acquire(tx, now).await?;
    let rules = Arc::new(Ruleset::ensure(tx, now).await?);
    let facts = facts_in_range(tx, &rules, range, None).await?;
    let stored = store::in_range(tx, range).await?;
    Evaluation::load(tx, &rules, now).await?.record(tx, facts, stored, |_| None).await?;
    Ok(())
}

async fn evaluate(
    tx: &Tx,
    rules: &Arc<Ruleset>,
    changed: &BTreeMap<AssetId, ChangedNames>,
    is_refresh_needed: bool,
    now: DateTime<Utc>,
) -> Result<()> {
    if changed.is_empty() {
        return Ok(());
    }
    let mut evaluation = Evaluation::load(tx, rules, now).await?;
    // During a refresh the stored verdicts may follow old rules, so all rules are evaluated on these assets. The
    // refresh covers the other assets later.
    evaluation.evaluates_all_rules = is_refresh_needed || due::is_refreshing(tx).await?;
    let assets: Vec<_> = changed.keys().copied().collect();
    let facts = facts_of(tx, rules, &assets).await?;
    let stored = store::of_assets(tx, &assets).await?;
    evaluation.record(tx, facts, stored, |asset| changed.get(&asset).cloned().flatten()).await?;
    Ok(())
}

/// Reads the facts of these assets. Assets that are not in operation are left out.
pub(super) async fn facts_of(tx: &Tx, rules: &Ruleset, assets: &[AssetId]) -> Result<Vec<Facts>> {
    // One index lookup per asset, for the reason given in `store::of_assets`.
    let sql = format!(
        "SELECT found.* FROM UNNEST($1::uuid[]) AS given (id)
         CROSS JOIN LATERAL ({} WHERE asset.id = given.id AND {} LIMIT 1) AS found",
        rules.select_facts(),
        LifecycleState::IN_OPERATION,
    );
    tx.all(&sql, &[&assets]).await
}

async fn owned_by(tx: &Tx, owner: UserId) -> Result<Vec<AssetId>> {
    let sql = "SELECT id FROM asset WHERE owner_id = $1 LIMIT $2";
    let rows: Vec<Row> = tx.all(sql, &[&owner, &(MAX_OWNED + 1)]).await?;
    rows.iter().map(|row| Ok(row.try_get("id")?)).collect()
}

fn merge(changed: &mut BTreeMap<AssetId, ChangedNames>, asset: AssetId, names: &ChangedNames) {
    let Some(merged) = changed.get_mut(&asset) else {
        changed.insert(asset, names.clone());
        return;
    };
    match (merged.as_mut(), names) {
        (Some(merged), Some(names)) => merged.extend(names.iter().cloned()),
        (Some(_), None) => *merged = None,
        (None, _) => {}
    }
}
