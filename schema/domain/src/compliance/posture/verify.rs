//! Proving that what is kept is what a look at everything finds, and mending what is not.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use tokio_postgres::Row;

use super::{Posture, VerdictCode, due, evaluate::Evaluation, reevaluate::facts_of, store};
use crate::{
    base::{
        db::Tx,
        entity::{AssetId, RuleId},
        error::Result,
    },
    compliance::{
        finding::FindingState,
        lock::Lock,
        range::{AssetRange, facts_in_range},
        rule::Ruleset,
    },
};

/// A posture that is not what a look at everything finds, or that findings do not match.
#[derive(Debug, Clone, PartialEq)]
pub struct Mismatch {
    /// Of which asset.
    pub asset: AssetId,
    /// What is kept.
    pub kept: Option<Posture>,
    /// What it should be.
    pub judged: Option<Posture>,
    /// The codes that the findings tell of: failing or waived, or no finding.
    pub found: Vec<VerdictCode>,
}

/// What a comparison found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Verified {
    /// Assets that were compared.
    pub assets: usize,
    /// Assets that were not: they wait to be judged anew, or their time has just come.
    pub waiting: usize,
    /// What differs.
    pub mismatches: Vec<Mismatch>,
}

/// Compares what is kept of the assets in a range with what a look at all of them finds.
pub async fn verify(tx: &Tx, range: AssetRange, now: DateTime<Utc>) -> Result<Verified> {
    let now = Lock::Exclusive.take(tx, now).await?;
    let rules = Ruleset::ensure(tx, now).await?;
    let facts = facts_in_range(tx, &rules, range, None).await?;
    let mut kept = store::in_range(tx, range).await?;
    let mut found = found_in_range(tx, &rules, range).await?;
    // After the facts: what changed since they were read waits.
    let waiting = Waiting::read(tx).await?;
    let evaluation = Evaluation::load(tx, &rules, now).await?;
    let mut verified = Verified::default();
    for facts in &facts {
        let asset = facts.asset;
        let (kept, found) = (kept.remove(&asset), found.remove(&asset).unwrap_or_default());
        let is_flipping = kept.as_ref().is_some_and(|kept| kept.has_flipped_by(evaluation.now()));
        if is_flipping || waiting.includes(asset) {
            verified.waiting += 1;
            continue;
        }
        verified.assets += 1;
        let judged = evaluation.posture(facts, None, &None);
        let is_same = kept.as_ref().is_some_and(|kept| kept.says_the_same_as(&judged));
        if !(is_same && judged.tells_of(&found)) {
            verified.mismatches.push(Mismatch { asset, kept, judged: Some(judged), found });
        }
    }
    // What is kept of assets that are not judged.
    let left: BTreeSet<_> = kept.keys().chain(found.keys()).copied().collect();
    for asset in left {
        if waiting.includes(asset) {
            verified.waiting += 1;
            continue;
        }
        let found = found.remove(&asset).unwrap_or_default();
        let kept = kept.remove(&asset);
        verified.mismatches.push(Mismatch { asset, kept, judged: None, found });
    }
    Ok(verified)
}

/// Judges these anew, from what the findings tell: those that should not be end, and those that should are opened. In the
/// transaction that compared them.
pub async fn repair(tx: &Tx, mismatches: &[Mismatch], now: DateTime<Utc>) -> Result<()> {
    if mismatches.is_empty() {
        return Ok(());
    }
    let now = Lock::Exclusive.take(tx, now).await?;
    let rules = Ruleset::ensure(tx, now).await?;
    let assets: Vec<_> = mismatches.iter().map(|mismatch| mismatch.asset).collect();
    let facts = facts_of(tx, &rules, &assets).await?;
    let told = mismatches.iter().map(|mismatch| {
        let codes = mismatch.found.clone();
        (mismatch.asset, Posture { codes, ..Posture::blank(mismatch.asset, now) })
    });
    Evaluation::load(tx, &rules, now).await?.record(tx, &facts, told.collect(), |_| None).await?;
    Ok(())
}

impl Posture {
    fn has_flipped_by(&self, now: DateTime<Utc>) -> bool {
        self.flips.iter().any(|flip| flip.at <= now)
    }

    /// Whether the live findings are those of its codes.
    fn tells_of(&self, found: &[VerdictCode]) -> bool {
        let told = |slot: usize| Some(self.code(slot)).filter(|code| code.is_broken());
        let found_at = |slot: usize| found.get(slot).copied().filter(|code| code.is_broken());
        let slots = 0..self.codes.len().max(found.len());
        slots
            .filter(|slot| self.code(*slot) != VerdictCode::Error)
            .all(|slot| told(slot) == found_at(slot))
    }
}

/// What the live findings of a range tell, by asset and slot.
async fn found_in_range(
    tx: &Tx,
    rules: &Ruleset,
    range: AssetRange,
) -> Result<HashMap<AssetId, Vec<VerdictCode>>> {
    let slots: BTreeMap<RuleId, usize> =
        rules.all().iter().map(|ruled| (ruled.rule.id, ruled.slot)).collect();
    let (above, up_to) = range.bounds();
    let rows: Vec<Row> = tx
        .all(
            "SELECT asset_id, rule_id, state FROM finding WHERE asset_id > $1 AND asset_id <= $2 AND ended_at IS NULL",
            &[&above, &up_to],
        )
        .await?;
    let mut found: HashMap<AssetId, Vec<VerdictCode>> = HashMap::new();
    for row in &rows {
        let Some(slot) = slots.get(&row.try_get("rule_id")?) else { continue };
        let codes = found
            .entry(row.try_get("asset_id")?)
            .or_insert_with(|| vec![VerdictCode::Absent; rules.width()]);
        codes[*slot] = match FindingState::from_column(row.try_get("state")?)? {
            FindingState::Waived => VerdictCode::Waived,
            FindingState::Open => VerdictCode::Fail,
            FindingState::Fixed | FindingState::OutOfScope => VerdictCode::Absent,
        };
    }
    Ok(found)
}

/// Whose change waits to be followed.
enum Waiting {
    These(BTreeSet<AssetId>),
    Everybody,
}

impl Waiting {
    async fn read(tx: &Tx) -> Result<Self> {
        if due::is_refreshing(tx).await? {
            return Ok(Self::Everybody);
        }
        let rows: Vec<Row> = tx.all("SELECT DISTINCT asset_id FROM posture_due", &[]).await?;
        let mut these = BTreeSet::new();
        for row in &rows {
            let Some(asset) = row.try_get("asset_id")? else { return Ok(Self::Everybody) };
            these.insert(asset);
        }
        Ok(Self::These(these))
    }

    fn includes(&self, asset: AssetId) -> bool {
        match self {
            Self::These(assets) => assets.contains(&asset),
            Self::Everybody => true,
        }
    }
}
