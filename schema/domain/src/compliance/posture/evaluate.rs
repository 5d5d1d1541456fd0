//! A look at an asset: every rule judges it, and what that says is compared with what was kept.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::{Letter, Posture, Turn, active_waivers::Waivers};
use crate::{
    base::entity::WaiverId,
    compliance::{
        finding::{
            FindingState,
            transition::{Broken, Restated, Transitions},
        },
        rule::{Facts, Ruled, Ruleset, Verdict},
    },
};

/// What changed of an asset, as rules name it; `None`: anything.
pub(crate) type Reads = Option<BTreeSet<String>>;

/// By what assets are judged, and as of when.
pub(crate) struct Look<'a> {
    pub(super) rules: &'a Ruleset,
    pub(super) waivers: Waivers,
    pub(super) now: DateTime<Utc>,
    /// Whether assets are judged by all rules, whatever changed of them.
    pub(super) is_whole: bool,
}

impl Look<'_> {
    /// As of when.
    pub(crate) const fn now(&self) -> DateTime<Utc> {
        self.now
    }

    /// What the rules say of an asset. Those that read nothing of what changed say what they said.
    pub(crate) fn judge(&self, facts: &Facts, kept: Option<&Posture>, reads: &Reads) -> Posture {
        let mut posture = Posture {
            letters: vec![Letter::Absent; self.rules.width()],
            facts_hash: self.rules.facts_hash(facts),
            ..Posture::blank(facts.asset, self.now)
        };
        let mut errors = Map::new();
        for ruled in self.rules.iter() {
            let slot = ruled.slot;
            let before = kept.filter(|_| !self.is_whole && !is_touched(ruled, reads));
            if let Some((kept, letter)) =
                before.and_then(|kept| Some((kept, *kept.letters.get(slot)?)))
            {
                posture.letters[slot] = letter;
                posture.turns.extend(kept.turns.iter().filter(|turn| turn.slot == slot));
                let error = kept.errors.as_ref().and_then(|errors| errors.get(slot.to_string()));
                errors.extend(error.map(|error| (slot.to_string(), error.clone())));
            } else if ruled.applies(facts) {
                let verdict = ruled.verdict(facts, self.now);
                let waived = self.waivers.of(ruled, facts.asset).map(|(_, until)| until);
                posture.letters[slot] = letter(verdict, waived, self.now);
                posture.turns.extend(self.turn(ruled, facts, verdict, waived));
                if verdict == Verdict::Error {
                    let reason = ruled.judge(facts, self.now).reason.unwrap_or_default();
                    errors.insert(slot.to_string(), Value::String(reason));
                }
            }
            posture.count(posture.letters[slot], ruled.weight());
            if matches!(posture.letters[slot], Letter::Waived | Letter::Error)
                && let Some((waiver, _)) = self.waivers.of(ruled, facts.asset)
            {
                // Another waiver is another reason why it may be broken.
                posture.facts_hash ^=
                    folded(waiver).rotate_left(u32::try_from(slot % 64).unwrap_or(0));
            }
        }
        posture.errors = (!errors.is_empty()).then_some(Value::Object(errors));
        posture.score = posture.scored();
        posture
    }

    /// What time alone changes next: the rule's verdict, or whether a waiver allows it.
    fn turn(
        &self,
        ruled: &Ruled,
        facts: &Facts,
        verdict: Verdict,
        waived: Option<DateTime<Utc>>,
    ) -> Option<Turn> {
        let slot = ruled.slot;
        let flip = ruled.flip(facts, self.now, verdict);
        let end = waived.filter(|_| matches!(verdict, Verdict::Fail | Verdict::Error));
        let after_end = if verdict == Verdict::Fail { Letter::Fail } else { Letter::Error };
        match (flip, end) {
            (Some(flip), Some(end)) if end < flip.at => Some(Turn { slot, at: end, to: after_end }),
            (Some(flip), _) => {
                Some(Turn { slot, at: flip.at, to: letter(flip.to, waived, flip.at) })
            }
            (None, Some(end)) => Some(Turn { slot, at: end, to: after_end }),
            (None, None) => None,
        }
    }

    /// Notes what became of the asset's findings.
    pub(super) fn compare(
        &self,
        facts: &Facts,
        before: Option<&Posture>,
        after: &Posture,
        reads: &Reads,
        transitions: &mut Transitions,
    ) {
        let has_changed = before.is_none_or(|before| before.facts_hash != after.facts_hash);
        for ruled in self.rules.all() {
            let slot = ruled.slot;
            let old = before.map_or(Letter::Absent, |before| before.letter(slot));
            let new = after.letter(slot);
            // Who follows a change may find a hash that knew of it already: another look read the facts in between.
            let is_retold = old != new
                || (reads.is_some() && is_touched(ruled, reads))
                || (has_changed && (self.is_whole || is_touched(ruled, reads)));
            match new {
                Letter::Fail | Letter::Waived if !old.is_broken() => {
                    transitions.opened.push(self.broken(ruled, facts, new));
                }
                Letter::Fail | Letter::Waived if is_retold => {
                    transitions.changed.push(self.broken(ruled, facts, new));
                }
                Letter::Pass if old.may_be_broken() => {
                    transitions.end(facts.asset, ruled, FindingState::Fixed);
                }
                // Without a verdict it is not proven to be fixed.
                Letter::NotAssessed | Letter::Absent if old.may_be_broken() => {
                    transitions.end(facts.asset, ruled, FindingState::OutOfScope);
                }
                // That it cannot be judged is the rule's fault, and says nothing of the asset: what it broke stays as it was seen.
                Letter::Error if old.may_be_broken() && is_retold => {
                    let excused = self.excused(ruled, facts);
                    transitions.restated.push(Restated::new(facts.asset, ruled, excused));
                }
                Letter::Error
                | Letter::Fail
                | Letter::Waived
                | Letter::Pass
                | Letter::NotAssessed
                | Letter::Absent => {}
            }
        }
    }

    fn broken(&self, ruled: &Ruled, facts: &Facts, letter: Letter) -> Broken {
        let waiver = self.excused(ruled, facts);
        Broken {
            asset: facts.asset,
            rule: ruled.rule.id,
            version: ruled.version,
            severity: ruled.rule.definition.severity,
            evidence: ruled.evidence(facts, self.now),
            waiver: waiver.filter(|_| letter == Letter::Waived),
        }
    }

    fn excused(&self, ruled: &Ruled, facts: &Facts) -> Option<WaiverId> {
        self.waivers.of(ruled, facts.asset).map(|(waiver, _)| waiver)
    }

    pub(super) fn leave(&self, posture: &Posture, transitions: &mut Transitions) {
        for ruled in self.rules.all() {
            if posture.letter(ruled.slot).may_be_broken() {
                transitions.end(posture.asset, ruled, FindingState::OutOfScope);
            }
        }
    }
}

/// Whether a change may change what a rule says.
fn is_touched(ruled: &Ruled, reads: &Reads) -> bool {
    reads.as_ref().is_none_or(|changed| ruled.meets(changed))
}

fn letter(verdict: Verdict, waived_until: Option<DateTime<Utc>>, at: DateTime<Utc>) -> Letter {
    match verdict {
        Verdict::Pass => Letter::Pass,
        Verdict::Fail if waived_until.is_some_and(|until| at < until) => Letter::Waived,
        Verdict::Fail => Letter::Fail,
        Verdict::NotAssessed => Letter::NotAssessed,
        Verdict::Error => Letter::Error,
    }
}

fn folded(waiver: WaiverId) -> i64 {
    let (high, low) = waiver.uuid().as_u64_pair();
    (high ^ low).cast_signed()
}
