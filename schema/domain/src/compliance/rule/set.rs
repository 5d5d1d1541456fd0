//! The rules of an organization, by slot: compiled, and ready to evaluate.
//!
//! Built-in ones are compiled once for all; others whenever they are loaded, which is once a job. A saved rule that this version
//! cannot read any more judges nothing to be well: its verdict is an error that says why.

use std::{collections::BTreeSet, sync::Arc};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{
    Flip, Rule, RuleEvaluation, Verdict,
    builtin::Builtin,
    cel::{Compiled, compile},
    facts::Facts,
    hash::Hash,
    key::Key,
    params::Params,
};
use crate::base::{entity::RuleVersionId, error::FieldError};

impl Rule {
    /// What it says, checked and compiled with the thresholds that count.
    ///
    /// # Errors
    /// What this version of ours cannot read of it.
    pub fn compiled(&self) -> Result<Arc<Compiled>, Vec<FieldError>> {
        let params = Params::declared(&self.definition.params)?.with(&self.params)?;
        if self.builtin
            && let Some(builtin) = Builtin::of_key(&self.key)
            && builtin.definition == self.definition
            && builtin.params == params
        {
            return Ok(Arc::clone(&builtin.compiled));
        }
        compile(&self.definition, &params).map(Arc::new)
    }
}

/// A rule, ready to evaluate.
#[derive(Debug, Clone)]
pub struct CompiledRule {
    /// The rule as it counts.
    pub rule: Rule,
    /// Its place in the verdicts of a posture.
    pub slot: usize,
    /// The version that counts.
    pub version: RuleVersionId,
    /// Or why this version of ours cannot read it.
    compiled: Result<Arc<Compiled>, Arc<str>>,
    /// The folded names of the tags that it is about.
    tags: Arc<[String]>,
}

impl CompiledRule {
    /// A rule at its slot, compiled with its thresholds.
    pub fn new(rule: Rule, slot: usize, version: RuleVersionId) -> Self {
        let compiled = rule.compiled().map_err(|faults| {
            let all: Vec<_> =
                faults.iter().map(|fault| format!("{}: {}", fault.path, fault.message)).collect();
            format!("this version cannot read the rule: {}", all.join("; ")).into()
        });
        let tags = rule.definition.applies_to.folded_tags().into();
        Self { rule, slot, version, compiled, tags }
    }

    /// Whether it is about this asset.
    pub fn applies(&self, facts: &Facts) -> bool {
        self.rule.definition.applies_to.includes(facts, &self.tags)
    }

    /// What it says of the asset.
    pub fn evaluate(&self, facts: &Facts, now: DateTime<Utc>) -> RuleEvaluation {
        match &self.compiled {
            Ok(compiled) => compiled.evaluate(facts, now),
            Err(reason) => {
                RuleEvaluation { verdict: Verdict::Error, reason: Some(reason.to_string()) }
            }
        }
    }

    /// What it says of the asset, without the reason: cheaper.
    pub fn verdict(&self, facts: &Facts, now: DateTime<Utc>) -> Verdict {
        self.compiled.as_ref().map_or(Verdict::Error, |compiled| compiled.verdict(facts, now))
    }

    /// The next change of its verdict, which it has `now`, if nothing but time changes.
    pub fn flip(&self, facts: &Facts, now: DateTime<Utc>, verdict: Verdict) -> Option<Flip> {
        let compiled = self.compiled.as_ref().ok()?;
        // Most rules never look at the clock.
        if !compiled.reads_now && !compiled.reads_support() {
            return None;
        }
        compiled.flip(facts, now, verdict)
    }

    /// What to show beside its verdict: an object; what cannot be computed is null.
    pub fn evidence(&self, facts: &Facts, now: DateTime<Utc>) -> Value {
        self.compiled.as_ref().map_or_else(|_| json!({}), |compiled| compiled.evidence(facts, now))
    }

    /// What it reads, such as `attr.disk_encrypted` or `asset.environment`.
    pub fn reads(&self) -> impl Iterator<Item = &'static str> {
        self.keys().into_iter().map(Key::name)
    }

    /// What it reads. Which assets it is about is known even where the rest cannot be read.
    fn keys(&self) -> BTreeSet<Key> {
        match &self.compiled {
            Ok(compiled) => compiled.reads.clone(),
            Err(_) => self.rule.definition.applies_to.reads().collect(),
        }
    }

    /// Whether one of these changes concerns it: what it reads, or `rule.<key>`.
    pub fn depends_on(&self, changed: &BTreeSet<String>) -> bool {
        let is_own = |name: &String| name.strip_prefix("rule.") == Some(self.rule.key.as_str());
        changed.iter().any(is_own) || self.reads().any(|read| changed.contains(read))
    }

    /// What it counts in a score.
    pub const fn weight(&self) -> i32 {
        self.rule.definition.severity.weight()
    }

    /// Steps of its condition at worst.
    pub fn cost(&self) -> u64 {
        self.compiled.as_ref().map_or(0, |compiled| compiled.cost)
    }
}

/// The rules of an organization, by slot.
#[derive(Debug, Clone, Default)]
pub struct Ruleset {
    rules: Vec<CompiledRule>,
    /// What enabled ones read, by name.
    reads: Vec<Key>,
    /// Which versions with which thresholds they are, hashed.
    terms: i64,
}

impl Ruleset {
    /// These, whatever their order.
    pub fn new(mut rules: Vec<CompiledRule>) -> Self {
        rules.sort_by_key(|rule| rule.slot);
        let mut reads = BTreeSet::new();
        let mut terms = Hash::new();
        for rule in rules.iter().filter(|rule| rule.rule.enabled) {
            reads.extend(rule.keys());
            terms.number(rule.slot);
            terms.bytes(rule.version.uuid().as_bytes());
            terms.bytes(rule.rule.params.to_string().as_bytes());
        }
        let mut reads: Vec<Key> = reads.into_iter().collect();
        reads.sort_unstable_by_key(|key| key.name());
        Self { rules, reads, terms: terms.end() }
    }

    /// Those that assets are judged by, by slot.
    pub fn iter(&self) -> impl Iterator<Item = &CompiledRule> {
        self.rules.iter().filter(|rule| rule.rule.enabled)
    }

    /// All of them, those that are switched off included, by slot.
    pub fn all(&self) -> &[CompiledRule] {
        &self.rules
    }

    /// The one at this slot, switched off or not.
    pub fn by_slot(&self, slot: usize) -> Option<&CompiledRule> {
        let place = self.rules.binary_search_by_key(&slot, |rule| rule.slot).ok()?;
        self.rules.get(place)
    }

    /// The length of the verdicts of a posture: the highest slot and one.
    pub fn width(&self) -> usize {
        self.rules.last().map_or(0, |rule| rule.slot + 1)
    }

    /// The statement that reads [`Facts`] with what the rules may ask for.
    pub fn select_facts(&self) -> &'static str {
        Facts::select(self.reads.iter().copied())
    }

    /// What the rules read of this asset, and by which terms they evaluate, as a number: while it stays the same, only time changes
    /// verdicts and evidence. Every version of ours comes to the same one, so keys count by name; what follows from others as of
    /// an instant does not count.
    pub fn facts_hash(&self, facts: &Facts) -> i64 {
        let mut hash = Hash::new();
        hash.bytes(&self.terms.to_le_bytes());
        for key in &self.reads {
            hash.bytes(key.name().as_bytes());
            match facts.value(*key) {
                Some(held) => hash.held(held),
                None => hash.bytes(b"-"),
            }
        }
        // Whatever rules apply by must count, too.
        hash.bytes(facts.asset_type.as_str().as_bytes());
        hash.bytes(facts.environment.as_str().as_bytes());
        hash.end()
    }

    /// Those that are enabled, as a run keeps them.
    pub fn snapshot(&self) -> Value {
        self.iter()
            .map(|rule| {
                json!({
                    "slot": rule.slot,
                    "rule": rule.rule.id.uuid(),
                    "version": rule.version.uuid(),
                    "params": rule.rule.params,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::Id;
    use crate::compliance::rule::{
        AppliesTo, Definition, Described, Severity, facts::tests::described,
    };

    fn one(condition: &str, applies_to: AppliesTo) -> Ruleset {
        let definition = Definition {
            title: "t".to_owned(),
            severity: Severity::Low,
            controls: Vec::new(),
            applies_to,
            params: json!({}),
            condition: condition.to_owned(),
            evidence: std::collections::BTreeMap::new(),
            remediation: "r".to_owned(),
        };
        let rule = Rule {
            id: Id::from(uuid::Uuid::nil()),
            key: "own".to_owned(),
            version: 1,
            builtin: false,
            enabled: true,
            params: json!({}),
            definition,
        };
        Ruleset::new(vec![CompiledRule::new(rule, 0, Id::from(uuid::Uuid::nil()))])
    }

    #[test]
    fn the_hash_of_the_same_facts_is_the_same_in_every_version_of_ours() {
        let rules = one(
            "attr.os_supported && attr.disk_encrypted && size(attr.open_ports) < 9 && attr.os_name != 'BeOS' && attr.cpu_cores > 1",
            AppliesTo::default(),
        );
        let attributes =
            br#"{"os_name": "Ubuntu 20.04", "disk_encrypted": true, "open_ports": [22, 443]}"#;
        assert_eq!(
            rules.facts_hash(&Facts::of(&described(attributes)).unwrap()),
            5_811_731_389_553_102_702
        );
    }

    #[test]
    fn a_rule_that_cannot_be_read_is_an_error_on_the_assets_that_it_is_about() {
        let tags = vec!["Edge".to_owned()];
        let rules = one("attr.of_a_later_version", AppliesTo { tags, ..AppliesTo::default() });
        assert_eq!(rules.select_facts(), Facts::SELECT_WITH_TAGS);
        let unread = rules.by_slot(0).unwrap();
        assert!(unread.depends_on(&["asset.tags".to_owned()].into()));
        let of = |tags| Facts::of(&Described { tags, ..described(b"{}") }).unwrap();
        let tagged = of(vec!["edge".to_owned()]);
        assert!(unread.applies(&tagged) && !unread.applies(&of(Vec::new())));
        assert_eq!(unread.verdict(&tagged, DateTime::UNIX_EPOCH), Verdict::Error);
    }
}
