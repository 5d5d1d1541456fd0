//! Verification: compares the stored postures with a full evaluation of every rule, and repairs the differences.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

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
        evaluator,
        finding::FindingState,
        lock::PostureLock,
        range::{AssetRange, facts_in_range},
        rule::Ruleset,
    },
};

/// An asset on which the stored posture, a full evaluation and the live findings do not agree.
#[derive(Debug, Clone, PartialEq)]
pub struct Mismatch {
    /// The asset with the difference.
    pub asset: AssetId,
    /// The stored posture; `None` if there is none.
    pub stored: Option<Posture>,
    /// The posture from a full evaluation; `None` if the asset is not in operation.
    pub expected: Option<Posture>,
    /// Verdict codes derived from the live findings, by slot: `Fail`, `Waived`, or `Absent` without a finding.
    pub finding_codes: Vec<VerdictCode>,
}

/// Result of verifying a range of assets.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Verification {
    /// Number of compared assets, including those with a mismatch.
    pub assets: usize,
    /// Number of skipped assets: those that wait for re-evaluation, and those with a flip that is due.
    pub waiting: usize,
    /// The assets with a difference.
    pub mismatches: Vec<Mismatch>,
}

/// Compares the stored postures of the assets in a range with a full evaluation.
pub async fn verify(tx: &Tx, range: AssetRange, now: DateTime<Utc>) -> Result<Verification> {
    let now = PostureLock::Exclusive.acquire(tx, now).await?;
    let rules = Arc::new(Ruleset::ensure(tx, now).await?);
    let facts = facts_in_range(tx, &rules, range, None).await?;
    let mut stored = store::in_range(tx, range).await?;
    let mut finding_codes = finding_codes_in_range(tx, &rules, range).await?;
    // Waiting changes are read after the facts, so that changes in between are included.
    let waiting = Waiting::read(tx).await?;
    let evaluation = Evaluation::load(tx, &rules, now).await?;
    let mut verification = Verification::default();
    let mut compared = Vec::with_capacity(facts.len());
    for facts in facts {
        let asset = facts.asset;
        let (stored, finding_codes) =
            (stored.remove(&asset), finding_codes.remove(&asset).unwrap_or_default());
        let is_flipping =
            stored.as_ref().is_some_and(|stored| stored.has_flipped_by(evaluation.now()));
        if is_flipping || waiting.includes(asset) {
            verification.waiting += 1;
            continue;
        }
        compared.push((facts, stored, finding_codes));
    }
    verification.assets = compared.len();
    let results = Vec::with_capacity(compared.len());
    let results = evaluator::fold(tx.org(), compared, results, move |results, asset| {
        let (facts, stored, finding_codes) = asset;
        results.push((evaluation.posture(&facts, None, &None), stored, finding_codes));
    });
    for (expected, stored, finding_codes) in results.await {
        let asset = expected.asset;
        let is_same = stored.as_ref().is_some_and(|stored| stored.has_same_result(&expected));
        if !(is_same && expected.matches_findings(&finding_codes)) {
            verification.mismatches.push(Mismatch {
                asset,
                stored,
                expected: Some(expected),
                finding_codes,
            });
        }
    }
    // The remaining postures and findings belong to assets that are not in operation.
    let remaining: BTreeSet<_> = stored.keys().chain(finding_codes.keys()).copied().collect();
    for asset in remaining {
        if waiting.includes(asset) {
            verification.waiting += 1;
            continue;
        }
        let finding_codes = finding_codes.remove(&asset).unwrap_or_default();
        let stored = stored.remove(&asset);
        verification.mismatches.push(Mismatch { asset, stored, expected: None, finding_codes });
    }
    Ok(verification)
}

/// Re-evaluates these assets, using the live findings as the previous posture. Findings without a failure end, and
/// failures without a finding open a finding. Call it in the transaction of [`verify`].
pub async fn repair(tx: &Tx, mismatches: &[Mismatch], now: DateTime<Utc>) -> Result<()> {
    if mismatches.is_empty() {
        return Ok(());
    }
    let now = PostureLock::Exclusive.acquire(tx, now).await?;
    let rules = Arc::new(Ruleset::ensure(tx, now).await?);
    let assets: Vec<_> = mismatches.iter().map(|mismatch| mismatch.asset).collect();
    let facts = facts_of(tx, &rules, &assets).await?;
    let findings = mismatches.iter().map(|mismatch| {
        let codes = mismatch.finding_codes.clone();
        (mismatch.asset, Posture { codes, ..Posture::empty(mismatch.asset, now) })
    });
    Evaluation::load(tx, &rules, now)
        .await?
        .record(tx, facts, findings.collect(), |_| None)
        .await?;
    Ok(())
}

impl Posture {
    fn has_flipped_by(&self, now: DateTime<Utc>) -> bool {
        self.flips.iter().any(|flip| flip.at <= now)
    }

    /// Returns true if the failures in the posture match the live findings. Slots with an error are skipped, because an
    /// error does not end a finding.
    fn matches_findings(&self, finding_codes: &[VerdictCode]) -> bool {
        let failure_at = |slot: usize| Some(self.code(slot)).filter(|code| code.is_failure());
        let finding_at =
            |slot: usize| finding_codes.get(slot).copied().filter(|code| code.is_failure());
        let slots = 0..self.codes.len().max(finding_codes.len());
        slots
            .filter(|slot| self.code(*slot) != VerdictCode::Error)
            .all(|slot| failure_at(slot) == finding_at(slot))
    }
}

/// Returns the verdict codes derived from the live findings of a range, by asset and slot.
async fn finding_codes_in_range(
    tx: &Tx,
    rules: &Ruleset,
    range: AssetRange,
) -> Result<HashMap<AssetId, Vec<VerdictCode>>> {
    let slots: BTreeMap<RuleId, usize> =
        rules.all().iter().map(|rule| (rule.rule.id, rule.slot)).collect();
    let (above, up_to) = range.bounds();
    let rows: Vec<Row> = tx
        .all(
            "SELECT asset_id, rule_id, state FROM finding WHERE asset_id > $1 AND asset_id <= $2 AND ended_at IS NULL",
            &[&above, &up_to],
        )
        .await?;
    let mut finding_codes: HashMap<AssetId, Vec<VerdictCode>> = HashMap::new();
    for row in &rows {
        let Some(slot) = slots.get(&row.try_get("rule_id")?) else { continue };
        let codes = finding_codes
            .entry(row.try_get("asset_id")?)
            .or_insert_with(|| vec![VerdictCode::Absent; rules.width()]);
        codes[*slot] = match FindingState::from_column(row.try_get("state")?)? {
            FindingState::Waived => VerdictCode::Waived,
            FindingState::Open => VerdictCode::Fail,
            FindingState::Fixed | FindingState::OutOfScope => VerdictCode::Absent,
        };
    }
    Ok(finding_codes)
}

/// Assets with a change that waits for re-evaluation.
enum Waiting {
    Assets(BTreeSet<AssetId>),
    All,
}

impl Waiting {
    async fn read(tx: &Tx) -> Result<Self> {
        if due::is_refreshing(tx).await? {
            return Ok(Self::All);
        }
        let rows: Vec<Row> = tx.all("SELECT DISTINCT asset_id FROM posture_due", &[]).await?;
        let mut assets = BTreeSet::new();
        for row in &rows {
            let Some(asset) = row.try_get("asset_id")? else { return Ok(Self::All) };
            assets.insert(asset);
        }
        Ok(Self::Assets(assets))
    }

    fn includes(&self, asset: AssetId) -> bool {
        match self {
            Self::Assets(assets) => assets.contains(&asset),
            Self::All => true,
        }
    }
}
