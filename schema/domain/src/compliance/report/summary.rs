//! Results derived from a run's figures: control families, and the fixes that would raise the score most.

use std::collections::{BTreeMap, BTreeSet};

use async_graphql::SimpleObject;

use super::Report;
use crate::{
    access::{directive::requires, permission::Permission},
    compliance::{
        posture::Sums,
        rule::{Control, Rule},
        score::{RuleTally, VerdictCounts},
    },
};

/// Maximum number of remediations in a report.
const MAX_REMEDIATIONS: usize = 10;

/// Family under which rules without a control are listed.
const NO_CONTROL: &str = "(none)";

/// Results of the rules that check one family of controls. A rule with controls in several families counts in each of
/// them. Requires `COMPLIANCE_READ`.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
#[graphql(name = "ControlFamily", directive = requires::apply(Permission::ComplianceRead))]
pub struct Family {
    /// Title of the family, e.g. `System and Communications Protection`. The framework's name if the family is unknown,
    /// and `(none)` for rules without controls.
    pub family: String,
    /// Number of `PASS` verdicts: the asset meets the rule.
    pub passed: i64,
    /// Number of `FAIL` verdicts without a waiver.
    pub failed: i64,
    /// Number of waived `FAIL` verdicts.
    pub waived: i64,
    /// Number of `NOT_ASSESSED` verdicts, for which a fact is missing.
    pub not_assessed: i64,
    /// Number of `ERROR` verdicts: the rule could not be evaluated.
    pub errors: i64,
    /// Fraction, 0 to 1: weight of the assessed verdicts (passed, failed or waived) out of the weight of all verdicts
    /// of the family. The weight of a verdict depends on the rule's severity: 1, 2, 5 or 10 from `LOW` to `CRITICAL`.
    pub coverage: f64,
    /// Percentage, 0 to 100: weight of the passed verdicts out of the weight of the passed and failed verdicts,
    /// weighted by severity as in `coverage`. Waived failures do not count. Null if no verdict passed or failed.
    pub score: Option<f64>,
}

/// Gain of the weighted score if no asset failed the rule any more.
#[derive(Debug, Clone, PartialEq)]
pub struct Remediation {
    /// The rule in the version that the run used.
    pub rule: Rule,
    /// Number of assets that failed the rule without a waiver.
    pub assets: i64,
    /// Total weight of these failures.
    pub recoverable_weight: i64,
    /// Rise of the weighted score in percentage points.
    pub score_gain: f64,
}

impl Report {
    /// Returns the results by control family, ordered by title.
    pub fn families(&self) -> Vec<Family> {
        let mut families: BTreeMap<String, (VerdictCounts, Sums)> = BTreeMap::new();
        for (rule, rule_tally) in self.rules.iter().zip(self.rule_tallies()) {
            for family in families_of(rule) {
                let (tally, sums) = families.entry(family).or_default();
                let weights = rule_tally.tally.weighted_by(rule_tally.severity);
                *tally = tally.plus(rule_tally.tally);
                sums.passed_weight += weights.passed_weight;
                sums.failed_weight += weights.failed_weight;
                sums.waived_weight += weights.waived_weight;
                sums.whole_weight += weights.whole_weight;
            }
        }
        let family = |(family, (tally, sums)): (String, (VerdictCounts, Sums))| Family {
            family,
            passed: tally.passed,
            failed: tally.failed,
            waived: tally.waived,
            not_assessed: tally.not_assessed,
            errors: tally.errors,
            coverage: sums.coverage(),
            score: sums.weighted(),
        };
        families.into_iter().map(family).collect()
    }

    /// Returns up to ten rules with the highest weight of failures, for which a fix raises the score most.
    pub fn remediations(&self) -> Vec<Remediation> {
        let sums = self.figures.as_ref().map(|figures| figures.sums).unwrap_or_default();
        let failing = self
            .rules
            .iter()
            .zip(self.rule_tallies())
            .filter(|(_, rule_tally)| rule_tally.tally.failed > 0);
        let mut remediations: Vec<_> = failing
            .map(|(rule, rule_tally)| {
                let recoverable = rule_tally.tally.weighted_by(rule_tally.severity).failed_weight;
                let sums_after_fix = Sums {
                    passed_weight: sums.passed_weight + recoverable,
                    failed_weight: sums.failed_weight - recoverable,
                    ..sums
                };
                Remediation {
                    rule: rule.clone(),
                    assets: rule_tally.tally.failed,
                    recoverable_weight: recoverable,
                    score_gain: sums_after_fix.weighted().unwrap_or(0.0)
                        - sums.weighted().unwrap_or(0.0),
                }
            })
            .collect();
        remediations.sort_by_key(|remediation| std::cmp::Reverse(remediation.recoverable_weight));
        remediations.truncate(MAX_REMEDIATIONS);
        remediations
    }

    pub(super) fn rule_tallies(&self) -> &[RuleTally] {
        self.figures.as_ref().map_or(&[], |figures| &figures.rule_tallies)
    }
}

/// Returns the families of a rule's controls, each once.
fn families_of(rule: &Rule) -> BTreeSet<String> {
    let controls = rule.definition.controls.iter().map(Control::of);
    let families: BTreeSet<String> =
        controls.map(|control| control.family.unwrap_or(control.framework)).collect();
    if families.is_empty() { BTreeSet::from([NO_CONTROL.to_owned()]) } else { families }
}
