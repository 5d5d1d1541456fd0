//! Verdicts as people see them: with why there is none, what was seen, and when time will change it.
//!
//! The code is what is kept; the rest is judged again from the facts as of when the posture became what it is. Where that
//! gives another verdict, a change has just been made and is being followed: it is said so, instead of showing what belongs
//! to another verdict.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{Posture, VerdictCode, store};
use crate::{
    base::{db::Tx, entity::AssetId, error::Result},
    compliance::rule::{CompiledRule, Facts, Rule, Ruleset, Verdict},
};

/// What is said where facts and verdict do not belong together.
const FOLLOWING: &str = "a change of it is being followed: ask again in a second";

/// What a rule says of an asset now.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleVerdict {
    /// The rule as it counts now.
    pub rule: Rule,
    /// What it says.
    pub verdict: Verdict,
    /// Whether a waiver allows that it fails.
    pub waived: bool,
    /// Why there is no verdict.
    pub reason: Option<String>,
    /// What was seen, by name, beside what it should be.
    pub evidence: Option<Value>,
    /// When time alone will change it.
    pub flips_at: Option<DateTime<Utc>>,
}

impl RuleVerdict {
    /// Those of these postures, by slot.
    pub async fn of_postures(tx: &Tx, postures: &[Posture]) -> Result<HashMap<AssetId, Vec<Self>>> {
        let rules = Ruleset::load(tx).await?;
        let assets: Vec<_> = postures.iter().map(|posture| posture.asset).collect();
        let select = rules.select_facts();
        let facts: Vec<Facts> =
            tx.all(&format!("{select} WHERE asset.id = ANY($1)"), &[&assets]).await?;
        let facts: HashMap<_, _> = facts.iter().map(|facts| (facts.asset, facts)).collect();
        let verdicts = postures.iter().map(|posture| {
            let facts = facts.get(&posture.asset).copied();
            (posture.asset, Self::of_posture(posture, &rules, facts))
        });
        Ok(verdicts.collect())
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
        let judged = facts.map(|facts| (facts, rule.evaluate(facts, at)));
        let (reason, evidence) = match judged {
            Some((facts, judgement)) if judgement.verdict == verdict => {
                (judgement.reason, Some(rule.evidence(facts, at)))
            }
            Some(_) | None => (Some(FOLLOWING.to_owned()), None),
        };
        let kept = || posture.errors.as_ref()?.get(rule.slot.to_string())?.as_str();
        let flip = posture.flips.iter().find(|flip| flip.slot == rule.slot);
        Self {
            rule: rule.rule.clone(),
            verdict,
            waived: code == VerdictCode::Waived,
            reason: if code == VerdictCode::Error {
                kept().map(str::to_owned).or(reason)
            } else {
                reason
            },
            evidence,
            flips_at: flip.map(|flip| flip.at),
        }
    }
}

impl Posture {
    /// Those of these assets that were judged.
    pub async fn of_assets(tx: &Tx, assets: &[AssetId]) -> Result<Vec<Self>> {
        Ok(store::of_assets(tx, assets).await?.into_values().collect())
    }

    /// Its score, 0 to 100; none where nothing was judged.
    pub fn percent(&self) -> Option<f64> {
        self.score.map(|millionths| f64::from(millionths) / 1_000_000.0)
    }

    /// The weight of what was judged in that of all that applies, 0 to 1; 0 where nothing applies.
    pub fn coverage(&self) -> f64 {
        let judged = self.passed_weight + self.failed_weight + self.waived_weight;
        if self.whole_weight > 0 { f64::from(judged) / f64::from(self.whole_weight) } else { 0.0 }
    }
}
