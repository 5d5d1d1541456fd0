//! A look at some assets: every rule judges each of them, and what that changed is written.
//!
//! Whoever looks takes the posture lock first and reads rules, waivers and facts after it.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, SubsecRound, Utc};
use serde_json::{Map, Value};

use super::{Letter, Posture, Turn, store, tally::Tally};
use crate::{
    base::{
        db::Tx,
        entity::{AssetId, WaiverId},
        error::Result,
        id::Id,
    },
    compliance::{
        finding::{
            FindingState,
            transition::{Broken, First, Restated, Transitions},
        },
        rule::{Facts, Ruled, Ruleset, Verdict},
        waiver::Waiver,
    },
};

/// Assets between two chances for others to run.
const BREATH: usize = 32;
/// A score of 100, in millionths of a percent.
const WHOLE: i64 = 100_000_000;

/// What changed of an asset, as rules name it; `None`: anything.
pub(crate) type Reads = Option<BTreeSet<String>>;

/// By what assets are judged, and as of when.
pub(crate) struct Look<'a> {
    rules: &'a Ruleset,
    waivers: Waivers,
    now: DateTime<Utc>,
    /// Whether assets are judged by all rules, whatever changed of them.
    pub(super) is_whole: bool,
}

/// A waiver that holds, and until when.
type Held = (WaiverId, DateTime<Utc>);

/// The waivers that hold, by rule and asset; the one that holds longest.
struct Waivers(HashMap<(uuid::Uuid, Option<uuid::Uuid>), Held>);

impl Waivers {
    fn new(waivers: &[Waiver]) -> Self {
        let mut longest = HashMap::with_capacity(waivers.len());
        for waiver in waivers {
            let of = (waiver.rule_id.uuid(), waiver.asset_id.map(Id::uuid));
            let kept = longest.entry(of).or_insert((waiver.id, waiver.expires_at));
            if kept.1 < waiver.expires_at {
                *kept = (waiver.id, waiver.expires_at);
            }
        }
        Self(longest)
    }

    fn of(&self, ruled: &Ruled, asset: AssetId) -> Option<Held> {
        if self.0.is_empty() {
            return None;
        }
        let rule = ruled.rule.id.uuid();
        let own = self.0.get(&(rule, Some(asset.uuid())));
        let all = self.0.get(&(rule, None));
        own.into_iter().chain(all).max_by_key(|(_, until)| *until).copied()
    }
}

impl<'a> Look<'a> {
    /// By these rules, and the waivers that hold now.
    pub(crate) async fn new(tx: &Tx, rules: &'a Ruleset, now: DateTime<Utc>) -> Result<Self> {
        let now = now.trunc_subsecs(6); // As Postgres keeps it.
        let waivers = Waivers::new(&Waiver::active(tx, now).await?);
        Ok(Self { rules, waivers, now, is_whole: false })
    }

    /// As of when.
    pub(crate) const fn now(&self) -> DateTime<Utc> {
        self.now
    }

    /// Judges the assets of these facts, by what changed of each; writes what differs from what is kept, and forgets
    /// what is kept of others. The counts are of all of them.
    pub(crate) async fn take(
        &self,
        tx: &Tx,
        facts: &[Facts],
        mut kept: HashMap<AssetId, Posture>,
        reads: impl Fn(AssetId) -> Reads,
    ) -> Result<Tally> {
        let mut tally = Tally::new(self.rules.width());
        let first = if kept.is_empty() { First::of(tx, facts).await? } else { First::No };
        let mut transitions = Transitions::new(first);
        let mut written = Vec::new();
        for (place, facts) in facts.iter().enumerate() {
            if place % BREATH == 0 {
                tokio::task::yield_now().await;
            }
            let before = kept.remove(&facts.asset);
            let reads = reads(facts.asset);
            let after = self.judge(facts, before.as_ref(), &reads);
            tally.add(&after);
            self.compare(facts, before.as_ref(), &after, &reads, &mut transitions);
            if before.is_none_or(|before| !before.says_the_same_as(&after)) {
                written.push(after);
            }
        }
        // What is kept of assets that are not judged any more: retired, or deleted.
        let gone: Vec<Posture> = kept.into_values().collect();
        for posture in &gone {
            self.leave(posture, &mut transitions);
        }
        (tally.opened, tally.fixed) = transitions.record(tx, self.now).await?;
        store::write(tx, &written, first).await?;
        store::forget(tx, &gone.iter().map(|posture| posture.asset).collect::<Vec<_>>()).await?;
        Ok(tally)
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
    fn compare(
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

    fn leave(&self, posture: &Posture, transitions: &mut Transitions) {
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

impl Letter {
    /// Whether there is a finding.
    pub(super) const fn is_broken(self) -> bool {
        match self {
            Self::Fail | Self::Waived => true,
            Self::Pass | Self::NotAssessed | Self::Error | Self::Absent => false,
        }
    }

    /// Whether there may be a finding: what cannot be judged leaves it as it is.
    pub(super) const fn may_be_broken(self) -> bool {
        self.is_broken() || matches!(self, Self::Error)
    }
}

fn folded(waiver: WaiverId) -> i64 {
    let (high, low) = waiver.uuid().as_u64_pair();
    (high ^ low).cast_signed()
}

impl Posture {
    /// Of no rule yet.
    pub(super) const fn blank(asset: AssetId, evaluated_at: DateTime<Utc>) -> Self {
        Self {
            asset,
            letters: Vec::new(),
            score: None,
            passed_weight: 0,
            failed_weight: 0,
            waived_weight: 0,
            whole_weight: 0,
            turns: Vec::new(),
            errors: None,
            facts_hash: 0,
            evaluated_at,
        }
    }

    pub(super) fn letter(&self, slot: usize) -> Letter {
        self.letters.get(slot).copied().unwrap_or(Letter::Absent)
    }

    fn count(&mut self, letter: Letter, weight: i32) {
        match letter {
            Letter::Pass => self.passed_weight += weight,
            Letter::Fail => self.failed_weight += weight,
            Letter::Waived => self.waived_weight += weight,
            Letter::NotAssessed | Letter::Error => {}
            Letter::Absent => return,
        }
        self.whole_weight += weight;
    }

    fn scored(&self) -> Option<i32> {
        let assessed = i64::from(self.passed_weight + self.failed_weight);
        let score = (i64::from(self.passed_weight) * WHOLE).checked_div(assessed)?;
        Some(i32::try_from(score).expect("a part of the whole, which an i32 holds"))
    }

    /// Whether another look found the same.
    pub(crate) fn says_the_same_as(&self, other: &Self) -> bool {
        self.letters == other.letters
            && self.facts_hash == other.facts_hash
            && self.turns == other.turns
            && self.errors == other.errors
            && (self.passed_weight, self.failed_weight, self.waived_weight, self.whole_weight)
                == (
                    other.passed_weight,
                    other.failed_weight,
                    other.waived_weight,
                    other.whole_weight,
                )
    }
}
