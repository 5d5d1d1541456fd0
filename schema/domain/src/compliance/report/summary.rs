//! What follows from a run's numbers: how families of controls stand, and what would raise the score most.

use std::collections::{BTreeMap, BTreeSet};

use async_graphql::SimpleObject;

use super::Report;
use crate::{
    access::{directive::requires, permission::Permission},
    compliance::{
        posture::Sums,
        rule::{Control, Rule},
        score::{Judged, Tally},
    },
};

/// How many remediations a report names.
const MOST_REMEDIATIONS: usize = 10;

/// What rules without a control are listed under.
const NO_CONTROL: &str = "(none)";

/// How the controls of one family stand. A rule counts in each family that it has a control of. Takes `COMPLIANCE_READ`.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
#[graphql(name = "ControlFamily", directive = requires::apply(Permission::ComplianceRead))]
pub struct Family {
    /// The family's title, e.g. `System and Communications Protection`; of a framework whose families are not known, its name.
    pub family: String,
    /// Verdicts that are a pass.
    pub passed: i64,
    /// Verdicts that are a failure.
    pub failed: i64,
    /// Failures that a waiver allows.
    pub waived: i64,
    /// Verdicts that a missing fact prevented.
    pub not_assessed: i64,
    /// Verdicts that something went wrong with.
    pub errors: i64,
    /// The weight of what was judged in that of all that applies, 0 to 1.
    pub coverage: f64,
    /// The weight of what holds in that of what was judged, 0 to 100; null where nothing was.
    pub score: Option<f64>,
}

/// What would be gained if no asset broke a rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Remediation {
    /// The rule as it was.
    pub rule: Rule,
    /// How many assets broke it.
    pub assets: i64,
    /// How much these failures weigh.
    pub recoverable_weight: i64,
    /// How many points the weighted score would rise.
    pub score_gain: f64,
}

impl Report {
    /// How the families of controls stand, by title.
    pub fn families(&self) -> Vec<Family> {
        let mut families: BTreeMap<String, (Tally, Sums)> = BTreeMap::new();
        for (rule, judged) in self.rules.iter().zip(self.judged()) {
            for family in families_of(rule) {
                let (tally, sums) = families.entry(family).or_default();
                let more = judged.tally.weighing(judged.severity);
                *tally = tally.and(judged.tally);
                sums.passed_weight += more.passed_weight;
                sums.failed_weight += more.failed_weight;
                sums.waived_weight += more.waived_weight;
                sums.whole_weight += more.whole_weight;
            }
        }
        let family = |(family, (tally, sums)): (String, (Tally, Sums))| Family {
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

    /// What would raise the score most, at most ten.
    pub fn remediations(&self) -> Vec<Remediation> {
        let sums = self.figures.as_ref().map(|figures| figures.sums).unwrap_or_default();
        let broken =
            self.rules.iter().zip(self.judged()).filter(|(_, judged)| judged.tally.failed > 0);
        let mut remediations: Vec<_> = broken
            .map(|(rule, judged)| {
                let recoverable = judged.tally.weighing(judged.severity).failed_weight;
                let mended = Sums {
                    passed_weight: sums.passed_weight + recoverable,
                    failed_weight: sums.failed_weight - recoverable,
                    ..sums
                };
                Remediation {
                    rule: rule.clone(),
                    assets: judged.tally.failed,
                    recoverable_weight: recoverable,
                    score_gain: mended.weighted().unwrap_or(0.0) - sums.weighted().unwrap_or(0.0),
                }
            })
            .collect();
        remediations.sort_by_key(|remediation| std::cmp::Reverse(remediation.recoverable_weight));
        remediations.truncate(MOST_REMEDIATIONS);
        remediations
    }

    pub(super) fn judged(&self) -> &[Judged] {
        self.figures.as_ref().map_or(&[], |figures| &figures.judged)
    }
}

/// Each once.
fn families_of(rule: &Rule) -> BTreeSet<String> {
    let controls = rule.definition.controls.iter().map(Control::of);
    let families: BTreeSet<String> =
        controls.map(|control| control.family.unwrap_or(control.framework)).collect();
    if families.is_empty() { BTreeSet::from([NO_CONTROL.to_owned()]) } else { families }
}
