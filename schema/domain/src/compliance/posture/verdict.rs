//! Verdicts for display, with reason, evidence and the time of the next flip (an expected change although no fact
//! changes).
//!
//! Only the verdict code is stored. Reason and evidence are evaluated again from the current facts, as of the time of
//! the stored posture. If this evaluation gives another verdict, the asset has just changed and waits for
//! re-evaluation. The reason then says so, and the evidence is left out, because it would belong to the other verdict.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::{Posture, VerdictCode, store};
use crate::{
    base::{db::Tx, entity::AssetId, error::Result},
    compliance::{
        evaluator,
        evidence::Evidence,
        rule::{CompiledRule, Facts, Rule, Ruleset, Verdict},
    },
};

/// Reason that is shown while the current facts do not match the stored verdict.
const PENDING: &str =
    "the asset has just changed and is being re-evaluated; read the verdict again in a second";

/// The current verdict of one rule for an asset.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleVerdict {
    /// The rule in its current version.
    pub rule: Rule,
    /// The rule's verdict for the asset.
    pub verdict: Verdict,
    /// True if the asset fails the rule and an active waiver covers the failure.
    pub waived: bool,
    /// The missing fact, the error message, or a note that the asset waits for re-evaluation; `None` otherwise.
    pub reason: Option<String>,
    /// Values of the rule's evidence expressions by name; `None` while the asset waits for re-evaluation.
    pub evidence: Option<Evidence>,
    /// Time of the next flip; `None` if no flip is expected.
    pub flips_at: Option<DateTime<Utc>>,
}

impl RuleVerdict {
    /// Returns the verdicts of these postures, by asset and in the order of slots.
    pub async fn of_postures(tx: &Tx, postures: &[Posture]) -> Result<HashMap<AssetId, Vec<Self>>> {
        let rules = Ruleset::load(tx).await?;
        let assets: Vec<_> = postures.iter().map(|posture| posture.asset).collect();
        let select = rules.select_facts();
        let facts: Vec<Facts> =
            tx.all(&format!("{select} WHERE asset.id = ANY($1)"), &[&assets]).await?;
        let facts: HashMap<_, _> = facts.into_iter().map(|facts| (facts.asset, facts)).collect();
        let verdicts = HashMap::with_capacity(postures.len());
        let postures = postures.to_vec();
        let evaluating = evaluator::fold(tx.org(), postures, verdicts, move |verdicts, posture| {
            let facts = facts.get(&posture.asset);
            verdicts.insert(posture.asset, Self::of_posture(&posture, &rules, facts));
        });
        Ok(evaluating.await)
    }

    fn of_posture(posture: &Posture, rules: &Ruleset, facts: Option<&Facts>) -> Vec<Self> {
        let codes = posture.codes.iter().enumerate();
        let verdicts = codes.filter_map(|(slot, code)| {
            Some(Self::of(posture, rules.by_slot(slot)?, *code, code.verdict()?, facts))
        });
        verdicts.collect()
    }

    fn of(
        posture: &Posture,
        rule: &CompiledRule,
        code: VerdictCode,
        verdict: Verdict,
        facts: Option<&Facts>,
    ) -> Self {
        let at = posture.evaluated_at;
        let current = facts.map(|facts| (facts, rule.evaluate(facts, at)));
        let (reason, evidence) = match current {
            Some((facts, evaluation)) if evaluation.verdict == verdict => {
                (evaluation.reason, Some(rule.evidence(facts, at)))
            }
            Some(_) | None => (Some(PENDING.to_owned()), None),
        };
        let stored_error = || posture.errors.as_ref()?.get(rule.slot.to_string())?.as_str();
        let flip = posture.flips.iter().find(|flip| flip.slot == rule.slot);
        Self {
            rule: rule.rule.clone(),
            verdict,
            waived: code == VerdictCode::Waived,
            reason: if code == VerdictCode::Error {
                stored_error().map(str::to_owned).or(reason)
            } else {
                reason
            },
            evidence,
            flips_at: flip.map(|flip| flip.at),
        }
    }
}

impl Posture {
    /// Returns the stored postures of these assets. Assets that were never evaluated are left out.
    pub async fn of_assets(tx: &Tx, assets: &[AssetId]) -> Result<Vec<Self>> {
        Ok(store::of_assets(tx, assets).await?.into_values().collect())
    }

    /// Returns the asset's score, a percentage, 0 to 100; `None` if no rule passes or fails without a waiver.
    pub fn percent(&self) -> Option<f64> {
        self.score.map(|millionths| f64::from(millionths) / 1_000_000.0)
    }

    /// Returns the coverage, 0 to 1: the fraction of the assessed weight (passed, failed and waived) out of the weight
    /// of all rules that apply. Returns 0 if no rule applies.
    pub fn coverage(&self) -> f64 {
        let assessed = self.passed_weight + self.failed_weight + self.waived_weight;
        if self.whole_weight > 0 { f64::from(assessed) / f64::from(self.whole_weight) } else { 0.0 }
    }
}
