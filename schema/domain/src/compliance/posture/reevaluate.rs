//! Re-evaluation of what changed, and of what time alone changes when its time has come.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use tokio_postgres::Row;

use super::{
    due,
    evaluate::{ChangedKeys, Evaluation},
    store,
};
use crate::{
    base::{
        db::Tx,
        entity::{AssetId, UserId},
        error::Result,
    },
    compliance::{
        lock::Lock,
        range::{AssetRange, facts_in_range},
        rule::{Facts, Ruleset},
    },
    inventory::asset::LifecycleState,
};

/// Changes that one transaction takes.
const BATCH: i64 = 2_000;

/// What a re-evaluation left undone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reevaluated {
    /// Whether more changes may wait.
    pub is_more: bool,
    /// Everybody's posture is to be judged anew: by [`refresh`], in these ranges.
    pub everybody: Vec<AssetRange>,
}

/// Judges what changed.
pub async fn reevaluate(tx: &Tx, now: DateTime<Utc>) -> Result<Reevaluated> {
    let now = Lock::Exclusive.take(tx, now).await?;
    let due: Vec<Row> = tx
        .all(
            "DELETE FROM posture_due USING (SELECT id FROM posture_due ORDER BY id LIMIT $1) AS first
             WHERE posture_due.id = first.id
             RETURNING posture_due.asset_id, posture_due.owner_id, posture_due.reads",
            &[&BATCH],
        )
        .await?;
    let mut reevaluated = Reevaluated {
        is_more: i64::try_from(due.len()).is_ok_and(|count| count >= BATCH),
        everybody: Vec::new(),
    };
    let mut changed: BTreeMap<AssetId, ChangedKeys> = BTreeMap::new();
    let mut is_everybody = false;
    for row in &due {
        let reads: Option<Vec<String>> = row.try_get("reads")?;
        let reads: ChangedKeys = reads.map(BTreeSet::from_iter);
        if let Some(asset) = row.try_get("asset_id")? {
            merge(&mut changed, asset, &reads);
        } else if let Some(owner) = row.try_get("owner_id")? {
            let owned = owned_by(tx, owner).await?;
            is_everybody |= owned.len() > usize::try_from(BATCH).unwrap_or(usize::MAX);
            for asset in owned {
                merge(&mut changed, asset, &reads);
            }
        } else {
            is_everybody = true;
        }
    }
    evaluate(tx, &changed, is_everybody, now).await?;
    if is_everybody {
        reevaluated.everybody = AssetRange::cut(tx, None).await?;
    }
    Ok(reevaluated)
}

/// Judges assets of which time alone has changed a verdict, some thousand at most: [`next_flip`] tells of more.
pub async fn reevaluate_flips(tx: &Tx, now: DateTime<Utc>) -> Result<()> {
    let now = Lock::Exclusive.take(tx, now).await?;
    let sql = "SELECT asset_id FROM posture WHERE flips_at <= $1 ORDER BY flips_at LIMIT $2";
    let flipped: Vec<Row> = tx.all(sql, &[&now, &BATCH]).await?;
    let mut changed = BTreeMap::new();
    for row in &flipped {
        changed.insert(row.try_get("asset_id")?, None);
    }
    evaluate(tx, &changed, false, now).await
}

/// When time alone changes a verdict next.
pub async fn next_flip(tx: &Tx) -> Result<Option<DateTime<Utc>>> {
    let row: Row = tx.one("SELECT min(flips_at) AS next FROM posture", &[]).await?;
    Ok(row.try_get("next")?)
}

/// Judges all assets of a range by what counts now.
pub async fn refresh(tx: &Tx, range: AssetRange, now: DateTime<Utc>) -> Result<()> {
    let now = Lock::Shared.take(tx, now).await?;
    let rules = Ruleset::ensure(tx, now).await?;
    let facts = facts_in_range(tx, &rules, range, None).await?;
    let kept = store::in_range(tx, range).await?;
    Evaluation::load(tx, &rules, now).await?.record(tx, &facts, kept, |_| None).await?;
    Ok(())
}

async fn evaluate(
    tx: &Tx,
    changed: &BTreeMap<AssetId, ChangedKeys>,
    is_everybody: bool,
    now: DateTime<Utc>,
) -> Result<()> {
    if changed.is_empty() {
        return Ok(());
    }
    let rules = Ruleset::ensure(tx, now).await?;
    let mut evaluation = Evaluation::load(tx, &rules, now).await?;
    // While others wait to be judged by other rules, these already are, by all of them.
    evaluation.is_whole = is_everybody || due::is_refreshing(tx).await?;
    let assets: Vec<_> = changed.keys().copied().collect();
    let facts = facts_of(tx, &rules, &assets).await?;
    let kept = store::of_assets(tx, &assets).await?;
    evaluation.record(tx, &facts, kept, |asset| changed.get(&asset).cloned().flatten()).await?;
    Ok(())
}

/// What is known of those of these that are in operation.
pub(super) async fn facts_of(tx: &Tx, rules: &Ruleset, assets: &[AssetId]) -> Result<Vec<Facts>> {
    // One by one: see `store::of_assets`.
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
    let rows: Vec<Row> = tx.all(sql, &[&owner, &(BATCH + 1)]).await?;
    rows.iter().map(|row| Ok(row.try_get("id")?)).collect()
}

fn merge(changed: &mut BTreeMap<AssetId, ChangedKeys>, asset: AssetId, reads: &ChangedKeys) {
    let Some(known) = changed.get_mut(&asset) else {
        changed.insert(asset, reads.clone());
        return;
    };
    match (known.as_mut(), reads) {
        (Some(known), Some(reads)) => known.extend(reads.iter().cloned()),
        (Some(_), None) => *known = None,
        (None, _) => {}
    }
}
