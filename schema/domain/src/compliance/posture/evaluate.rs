//! Evaluation of one asset. Input: rules, waivers, facts and the previous posture. Output: the new posture and the
//! transitions of the asset's findings. The functions are pure: they read neither rows nor a clock. `posture/record`
//! writes the result.

use std::{collections::BTreeSet, sync::Arc};

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::{Flip, Posture, VerdictCode, active_waivers::ActiveWaivers, inputs_hash::inputs_hash};
use crate::{
    base::entity::WaiverId,
    compliance::{
        finding::{
            FindingState,
            transition::{Ended, Failure, Unevaluable},
        },
        rule::{CompiledRule, Facts, Ruleset, Verdict},
        waiver::Waiver,
    },
};

/// Names of the facts that changed on an asset, such as `attr.disk_encrypted`, and of rules with a changed waiver, such
/// as `rule.disk-encryption`. `None` if anything may have changed.
pub(crate) type ChangedNames = Option<BTreeSet<String>>;

/// The rules, waivers and time with which assets are evaluated.
pub(crate) struct Evaluation {
    rules: Arc<Ruleset>,
    waivers: ActiveWaivers,
    now: DateTime<Utc>,
    /// True to evaluate every rule, even those that no change affects.
    pub(super) evaluates_all_rules: bool,
}

/// Transition of one finding, from the previous to the new posture.
#[derive(Debug)]
pub(super) enum Difference {
    /// The asset fails a rule, and its previous verdict was not a failure.
    Opened(Failure),
    /// The asset still fails the rule, but its inputs, its result or its waiver changed.
    Changed(Failure),
    /// The rule now ends with an error. The finding stays live and keeps its evidence.
    Unevaluable(Unevaluable),
    /// The asset passes the rule again, or the finding went out of scope.
    Ended(Ended),
}

/// Result of an evaluation, compared with the previous posture.
#[derive(Debug)]
pub(super) struct EvaluationResult {
    pub(super) posture: Posture,
    pub(super) differences: Vec<Difference>,
    /// True if the posture differs from the previous posture and must be written.
    pub(super) has_changed: bool,
}

impl Evaluation {
    /// Returns an evaluation with these rules and waivers as of `now`. `now` must be a whole number of microseconds.
    pub(super) fn new(rules: &Arc<Ruleset>, waivers: &[Waiver], now: DateTime<Utc>) -> Self {
        Self {
            rules: Arc::clone(rules),
            waivers: ActiveWaivers::new(waivers),
            now,
            evaluates_all_rules: false,
        }
    }

    /// Returns the rules to evaluate.
    pub(super) fn rules(&self) -> &Ruleset {
        &self.rules
    }

    /// Returns the time as of which assets are evaluated.
    pub(super) const fn now(&self) -> DateTime<Utc> {
        self.now
    }

    /// Evaluates an asset, given the facts that changed since the previous posture.
    pub(super) fn evaluate(
        &self,
        facts: &Facts,
        previous: Option<&Posture>,
        changed: &ChangedNames,
    ) -> EvaluationResult {
        let posture = self.posture(facts, previous, changed);
        let differences = self.compare(facts, previous, &posture, changed);
        let has_changed = previous.is_none_or(|previous| !previous.has_same_result(&posture));
        EvaluationResult { posture, differences, has_changed }
    }

    /// Returns the asset's posture. Rules that no change affects keep their previous verdict.
    pub(super) fn posture(
        &self,
        facts: &Facts,
        previous: Option<&Posture>,
        changed: &ChangedNames,
    ) -> Posture {
        let mut posture = Posture {
            codes: vec![VerdictCode::Absent; self.rules.width()],
            ..Posture::empty(facts.asset, self.now)
        };
        let (mut errors, mut waivers) = (Map::new(), Vec::new());
        for rule in self.rules.iter() {
            let slot = rule.slot;
            let before =
                previous.filter(|_| !self.evaluates_all_rules && !is_affected(rule, changed));
            if let Some((previous, code)) =
                before.and_then(|previous| Some((previous, *previous.codes.get(slot)?)))
            {
                posture.codes[slot] = code;
                posture.flips.extend(previous.flips.iter().filter(|flip| flip.slot == slot));
                let error =
                    previous.errors.as_ref().and_then(|errors| errors.get(slot.to_string()));
                errors.extend(error.map(|error| (slot.to_string(), error.clone())));
            } else if rule.applies(facts) {
                let verdict = rule.verdict(facts, self.now);
                let waived = self.waivers.of(rule, facts.asset).map(|(_, until)| until);
                posture.codes[slot] = code(verdict, waived, self.now);
                posture.flips.extend(self.flip(rule, facts, verdict, waived));
                if verdict == Verdict::Error {
                    let reason = rule.evaluate(facts, self.now).reason.unwrap_or_default();
                    errors.insert(slot.to_string(), Value::String(reason));
                }
            }
            posture.add_weight(posture.codes[slot], rule.weight());
            if matches!(posture.codes[slot], VerdictCode::Waived | VerdictCode::Error)
                && let Some((waiver, _)) = self.waivers.of(rule, facts.asset)
            {
                // The hash covers the waiver, so that another waiver rewrites the posture.
                waivers.push((slot, waiver));
            }
        }
        posture.errors = (!errors.is_empty()).then_some(Value::Object(errors));
        posture.score = posture.compute_score();
        posture.inputs_hash = inputs_hash(self.rules.facts_hash(facts), waivers);
        posture
    }

    /// Returns the next flip of the rule: a change of the verdict, or the expiry of the waiver that covers the failure.
    fn flip(
        &self,
        rule: &CompiledRule,
        facts: &Facts,
        verdict: Verdict,
        waived: Option<DateTime<Utc>>,
    ) -> Option<Flip> {
        let slot = rule.slot;
        let flip = rule.flip(facts, self.now, verdict);
        let end = waived.filter(|_| matches!(verdict, Verdict::Fail | Verdict::Error));
        let after_end =
            if verdict == Verdict::Fail { VerdictCode::Fail } else { VerdictCode::Error };
        match (flip, end) {
            (Some(flip), Some(end)) if end < flip.at => Some(Flip { slot, at: end, to: after_end }),
            (Some(flip), _) => Some(Flip { slot, at: flip.at, to: code(flip.to, waived, flip.at) }),
            (None, Some(end)) => Some(Flip { slot, at: end, to: after_end }),
            (None, None) => None,
        }
    }

    /// Returns the transitions of the asset's findings.
    fn compare(
        &self,
        facts: &Facts,
        before: Option<&Posture>,
        after: &Posture,
        changed: &ChangedNames,
    ) -> Vec<Difference> {
        let mut differences = Vec::new();
        let end = |rule: &CompiledRule, state| {
            Difference::Ended(Ended { asset: facts.asset, rule: rule.rule.id, state })
        };
        let has_changed = before.is_none_or(|before| before.inputs_hash != after.inputs_hash);
        for rule in self.rules.all() {
            let slot = rule.slot;
            let old = before.map_or(VerdictCode::Absent, |before| before.code(slot));
            let new = after.code(slot);
            // A concurrent evaluation may already have read the change and stored its hash. An equal hash therefore
            // does not prove that a finding is up to date if its rule depends on the change.
            let needs_update = old != new
                || (changed.is_some() && is_affected(rule, changed))
                || (has_changed && (self.evaluates_all_rules || is_affected(rule, changed)));
            match new {
                VerdictCode::Fail | VerdictCode::Waived if !old.is_failure() => {
                    differences.push(Difference::Opened(self.failure(rule, facts, new)));
                }
                VerdictCode::Fail | VerdictCode::Waived if needs_update => {
                    differences.push(Difference::Changed(self.failure(rule, facts, new)));
                }
                VerdictCode::Pass if old.may_have_live_finding() => {
                    differences.push(end(rule, FindingState::Fixed));
                }
                // Without a pass there is no proof of a fix.
                VerdictCode::NotAssessed | VerdictCode::Absent if old.may_have_live_finding() => {
                    differences.push(end(rule, FindingState::OutOfScope));
                }
                // An error shows nothing about the asset, so the finding stays live and keeps its evidence.
                VerdictCode::Error if old.may_have_live_finding() && needs_update => {
                    let active_waiver = self.active_waiver(rule, facts);
                    let unevaluable = Unevaluable::new(facts.asset, rule, active_waiver);
                    differences.push(Difference::Unevaluable(unevaluable));
                }
                VerdictCode::Error
                | VerdictCode::Fail
                | VerdictCode::Waived
                | VerdictCode::Pass
                | VerdictCode::NotAssessed
                | VerdictCode::Absent => {}
            }
        }
        differences
    }

    fn failure(&self, rule: &CompiledRule, facts: &Facts, code: VerdictCode) -> Failure {
        let waiver = self.active_waiver(rule, facts);
        Failure {
            asset: facts.asset,
            rule: rule.rule.id,
            version: rule.version,
            severity: rule.rule.definition.severity,
            evidence: rule.evidence(facts, self.now),
            waiver: waiver.filter(|_| code == VerdictCode::Waived),
        }
    }

    fn active_waiver(&self, rule: &CompiledRule, facts: &Facts) -> Option<WaiverId> {
        self.waivers.of(rule, facts.asset).map(|(waiver, _)| waiver)
    }

    /// Returns the transitions that end all findings of an asset that is no longer evaluated, because it was retired or
    /// deleted.
    pub(super) fn end_all(&self, posture: &Posture) -> Vec<Difference> {
        let rules = self.rules.all().iter();
        let rules = rules.filter(|rule| posture.code(rule.slot).may_have_live_finding());
        let end = |rule: &CompiledRule| {
            let (asset, rule) = (posture.asset, rule.rule.id);
            Difference::Ended(Ended { asset, rule, state: FindingState::OutOfScope })
        };
        rules.map(end).collect()
    }
}

/// Returns true if these changes can affect the rule's verdict.
fn is_affected(rule: &CompiledRule, changed: &ChangedNames) -> bool {
    changed.as_ref().is_none_or(|changed| rule.depends_on(changed))
}

fn code(verdict: Verdict, waived_until: Option<DateTime<Utc>>, at: DateTime<Utc>) -> VerdictCode {
    match verdict {
        Verdict::Pass => VerdictCode::Pass,
        Verdict::Fail if waived_until.is_some_and(|until| at < until) => VerdictCode::Waived,
        Verdict::Fail => VerdictCode::Fail,
        Verdict::NotAssessed => VerdictCode::NotAssessed,
        Verdict::Error => VerdictCode::Error,
    }
}

#[cfg(test)]
mod tests;
