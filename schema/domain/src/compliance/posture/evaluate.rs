//! Evaluating an asset: rules, waivers, facts and the previous posture in, the new posture and what became of the asset's findings
//! out. Pure: it reads no row and no clock. (`posture/record` writes what comes out.)

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::{Flip, Posture, VerdictCode, active_waivers::Waivers, inputs_hash::inputs_hash};
use crate::{
    base::entity::WaiverId,
    compliance::{
        finding::{
            FindingState,
            transition::{Broken, Ended, Restated},
        },
        rule::{CompiledRule, Facts, Ruleset, Verdict},
        waiver::Waiver,
    },
};

/// What changed of an asset, as rules name it; `None`: anything.
pub(crate) type ChangedKeys = Option<BTreeSet<String>>;

/// By what assets are judged, and as of when.
pub(crate) struct Evaluation<'a> {
    rules: &'a Ruleset,
    waivers: Waivers,
    now: DateTime<Utc>,
    /// Whether assets are judged by all rules, whatever changed of them.
    pub(super) is_whole: bool,
}

/// What becomes of one finding.
#[derive(Debug)]
pub(super) enum Difference {
    /// The asset breaks a rule that it did not break.
    Opened(Broken),
    /// The asset still breaks the rule, in another way or by another permission.
    Changed(Broken),
    /// The rule can no longer be judged: the finding stays as it was seen.
    Restated(Restated),
    /// The asset no longer breaks the rule, or is no longer judged by it.
    Ended(Ended),
}

/// What the rules say of an asset, compared with the previous posture.
#[derive(Debug)]
pub(super) struct Evaluated {
    pub(super) posture: Posture,
    pub(super) differences: Vec<Difference>,
    /// Whether the posture says something else than the previous one.
    pub(super) is_other: bool,
}

impl<'a> Evaluation<'a> {
    /// By these rules and the waivers that hold at this time, which counts to the microsecond.
    pub(super) fn new(rules: &'a Ruleset, waivers: &[Waiver], now: DateTime<Utc>) -> Self {
        Self { rules, waivers: Waivers::new(waivers), now, is_whole: false }
    }

    /// The rules.
    pub(super) const fn rules(&self) -> &Ruleset {
        self.rules
    }

    /// The time as of which assets are judged.
    pub(super) const fn now(&self) -> DateTime<Utc> {
        self.now
    }

    /// Judges an asset, by what changed of it since the previous posture.
    pub(super) fn evaluate(
        &self,
        facts: &Facts,
        previous: Option<&Posture>,
        reads: &ChangedKeys,
    ) -> Evaluated {
        let posture = self.posture(facts, previous, reads);
        let differences = self.compare(facts, previous, &posture, reads);
        let is_other = previous.is_none_or(|previous| !previous.says_the_same_as(&posture));
        Evaluated { posture, differences, is_other }
    }

    /// What the rules say of an asset. Those that read nothing of what changed say what they said.
    pub(super) fn posture(
        &self,
        facts: &Facts,
        kept: Option<&Posture>,
        reads: &ChangedKeys,
    ) -> Posture {
        let mut posture = Posture {
            codes: vec![VerdictCode::Absent; self.rules.width()],
            ..Posture::blank(facts.asset, self.now)
        };
        let (mut errors, mut waivers) = (Map::new(), Vec::new());
        for rule in self.rules.iter() {
            let slot = rule.slot;
            let before = kept.filter(|_| !self.is_whole && !is_affected(rule, reads));
            if let Some((kept, code)) = before.and_then(|kept| Some((kept, *kept.codes.get(slot)?)))
            {
                posture.codes[slot] = code;
                posture.flips.extend(kept.flips.iter().filter(|flip| flip.slot == slot));
                let error = kept.errors.as_ref().and_then(|errors| errors.get(slot.to_string()));
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
            posture.count(posture.codes[slot], rule.weight());
            if matches!(posture.codes[slot], VerdictCode::Waived | VerdictCode::Error)
                && let Some((waiver, _)) = self.waivers.of(rule, facts.asset)
            {
                // Another waiver is another reason why it may be broken.
                waivers.push((slot, waiver));
            }
        }
        posture.errors = (!errors.is_empty()).then_some(Value::Object(errors));
        posture.score = posture.scored();
        posture.inputs_hash = inputs_hash(self.rules.facts_hash(facts), waivers);
        posture
    }

    /// What time alone changes next: the rule's verdict, or whether a waiver allows it.
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

    /// What became of the asset's findings.
    fn compare(
        &self,
        facts: &Facts,
        before: Option<&Posture>,
        after: &Posture,
        reads: &ChangedKeys,
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
            // Who follows a change may find a hash that knew of it already: another look read the facts in between.
            let is_retold = old != new
                || (reads.is_some() && is_affected(rule, reads))
                || (has_changed && (self.is_whole || is_affected(rule, reads)));
            match new {
                VerdictCode::Fail | VerdictCode::Waived if !old.is_broken() => {
                    differences.push(Difference::Opened(self.broken(rule, facts, new)));
                }
                VerdictCode::Fail | VerdictCode::Waived if is_retold => {
                    differences.push(Difference::Changed(self.broken(rule, facts, new)));
                }
                VerdictCode::Pass if old.may_be_broken() => {
                    differences.push(end(rule, FindingState::Fixed));
                }
                // Without a verdict it is not proven to be fixed.
                VerdictCode::NotAssessed | VerdictCode::Absent if old.may_be_broken() => {
                    differences.push(end(rule, FindingState::OutOfScope));
                }
                // That it cannot be judged is the rule's fault, and says nothing of the asset: what it broke stays as it was seen.
                VerdictCode::Error if old.may_be_broken() && is_retold => {
                    let excused = self.excused(rule, facts);
                    let restated = Restated::new(facts.asset, rule, excused);
                    differences.push(Difference::Restated(restated));
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

    fn broken(&self, rule: &CompiledRule, facts: &Facts, code: VerdictCode) -> Broken {
        let waiver = self.excused(rule, facts);
        Broken {
            asset: facts.asset,
            rule: rule.rule.id,
            version: rule.version,
            severity: rule.rule.definition.severity,
            evidence: rule.evidence(facts, self.now),
            waiver: waiver.filter(|_| code == VerdictCode::Waived),
        }
    }

    fn excused(&self, rule: &CompiledRule, facts: &Facts) -> Option<WaiverId> {
        self.waivers.of(rule, facts.asset).map(|(waiver, _)| waiver)
    }

    /// What becomes of the findings of an asset that is judged no more: it is retired, or deleted.
    pub(super) fn leave(&self, posture: &Posture) -> Vec<Difference> {
        let broken = self.rules.all().iter();
        let broken = broken.filter(|rule| posture.code(rule.slot).may_be_broken());
        let end = |rule: &CompiledRule| {
            let (asset, rule) = (posture.asset, rule.rule.id);
            Difference::Ended(Ended { asset, rule, state: FindingState::OutOfScope })
        };
        broken.map(end).collect()
    }
}

/// Whether a change may change what a rule says.
fn is_affected(rule: &CompiledRule, reads: &ChangedKeys) -> bool {
    reads.as_ref().is_none_or(|changed| rule.depends_on(changed))
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
