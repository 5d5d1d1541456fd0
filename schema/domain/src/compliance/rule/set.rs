//! The rules of an organization, by slot, compiled for evaluation.
//!
//! Builtin rules with default parameters are compiled once per process. All other rules are compiled each time the
//! organization's rules are loaded, which is once per job. If this server version cannot compile a stored rule, the
//! verdict is `Error`, with the reason, on every asset to which the rule applies.

use std::{collections::BTreeSet, sync::Arc};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{
    Flip, Rule, RuleEvaluation, Verdict,
    builtin::Builtin,
    cel::{Compiled, compile},
    facts::Facts,
    hash::Hash,
    key::FactKey,
    params::Params,
};
use crate::{
    base::{entity::RuleVersionId, error::FieldError},
    compliance::evidence::Evidence,
};

/// Maximum number of assets to evaluate in one transaction, also with rules that cost little.
const MAX_BATCH: i64 = 2_000;
/// Maximum number of steps in one transaction. A step takes 45 to 100 ns.
const MAX_BATCH_STEPS: u64 = 60_000_000;

impl Rule {
    /// Checks the rule and compiles it with its effective parameters.
    ///
    /// # Errors
    /// All errors that this server version finds in the rule.
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

/// A rule that is compiled for evaluation.
#[derive(Debug, Clone)]
pub struct CompiledRule {
    /// The rule with its effective parameters.
    pub rule: Rule,
    /// Index of the rule's verdict in a posture.
    pub slot: usize,
    /// The current version of the rule.
    pub version: RuleVersionId,
    /// The compiled rule, or the reason why this server version cannot compile it.
    compiled: Result<Arc<Compiled>, Arc<str>>,
    /// Names of the tags in the rule's scope, in lower case.
    tags: Arc<[String]>,
}

impl CompiledRule {
    /// Compiles a rule with its parameters, for the given slot.
    pub fn new(rule: Rule, slot: usize, version: RuleVersionId) -> Self {
        let compiled = rule.compiled().map_err(|faults| {
            let all: Vec<_> =
                faults.iter().map(|fault| format!("{}: {}", fault.path, fault.message)).collect();
            format!("this version cannot read the rule: {}", all.join("; ")).into()
        });
        let tags = rule.definition.applies_to.lowercase_tags().into();
        Self { rule, slot, version, compiled, tags }
    }

    /// Returns true if the rule applies to this asset.
    pub fn applies(&self, facts: &Facts) -> bool {
        self.rule.definition.applies_to.includes(facts, &self.tags)
    }

    /// Evaluates the rule on the asset.
    pub fn evaluate(&self, facts: &Facts, now: DateTime<Utc>) -> RuleEvaluation {
        match &self.compiled {
            Ok(compiled) => compiled.evaluate(facts, now),
            Err(reason) => {
                RuleEvaluation { verdict: Verdict::Error, reason: Some(reason.to_string()) }
            }
        }
    }

    /// Returns the verdict on the asset without the reason, which is cheaper.
    pub fn verdict(&self, facts: &Facts, now: DateTime<Utc>) -> Verdict {
        self.compiled.as_ref().map_or(Verdict::Error, |compiled| compiled.verdict(facts, now))
    }

    /// Returns the next flip after `now`; `None` if no flip is expected. `verdict` is the verdict at `now`.
    pub fn flip(&self, facts: &Facts, now: DateTime<Utc>, verdict: Verdict) -> Option<Flip> {
        let compiled = self.compiled.as_ref().ok()?;
        // Most rules never read the clock.
        if !compiled.reads_now && !compiled.reads_os_supported() {
            return None;
        }
        compiled.flip(facts, now, verdict)
    }

    /// Returns the values of the evidence expressions; null for an expression that cannot be
    /// evaluated.
    pub fn evidence(&self, facts: &Facts, now: DateTime<Utc>) -> Evidence {
        let none = |_: &_| Evidence::new(json!({}));
        self.compiled.as_ref().map_or_else(none, |compiled| compiled.evidence(facts, now))
    }

    /// Returns the names of the facts that the rule reads, such as `attr.disk_encrypted` or `asset.environment`.
    pub fn reads(&self) -> impl Iterator<Item = &'static str> {
        self.keys().into_iter().map(FactKey::name)
    }

    /// Returns the facts that the rule reads. If the rule cannot be compiled, only the facts of its scope are known.
    fn keys(&self) -> BTreeSet<FactKey> {
        match &self.compiled {
            Ok(compiled) => compiled.reads.clone(),
            Err(_) => self.rule.definition.applies_to.reads().collect(),
        }
    }

    /// Returns true if one of these changes can affect the rule: a fact that the rule reads, or `rule.<key>` for a
    /// changed waiver.
    pub fn depends_on(&self, changed: &BTreeSet<String>) -> bool {
        let is_own = |name: &String| name.strip_prefix("rule.") == Some(self.rule.key.as_str());
        changed.iter().any(is_own) || self.reads().any(|read| changed.contains(read))
    }

    /// Returns the rule's weight in a score.
    pub const fn weight(&self) -> i32 {
        self.rule.definition.severity.weight()
    }

    /// Returns the maximum number of steps to evaluate the condition; 0 if the rule cannot be compiled.
    pub fn cost(&self) -> u64 {
        self.compiled.as_ref().map_or(0, |compiled| compiled.cost)
    }

    /// Returns the maximum number of steps that the rule takes on one asset; 0 if the rule cannot be compiled.
    pub(in crate::compliance::rule) fn total_cost(&self) -> u64 {
        self.compiled.as_ref().map_or(0, |compiled| compiled.total_cost)
    }
}

/// The rules of an organization, by slot.
#[derive(Debug, Clone, Default)]
pub struct Ruleset {
    rules: Vec<CompiledRule>,
    /// Facts that enabled rules read, ordered by name.
    reads: Vec<FactKey>,
    /// Hash of the versions and parameters of the enabled rules.
    versions_hash: i64,
}

impl Ruleset {
    /// Returns a set of these rules, ordered by slot.
    pub fn new(mut rules: Vec<CompiledRule>) -> Self {
        rules.sort_by_key(|rule| rule.slot);
        let mut reads = BTreeSet::new();
        let mut versions_hash = Hash::new();
        for rule in rules.iter().filter(|rule| rule.rule.enabled) {
            reads.extend(rule.keys());
            versions_hash.number(rule.slot);
            versions_hash.bytes(rule.version.uuid().as_bytes());
            versions_hash.bytes(rule.rule.params.to_string().as_bytes());
        }
        let mut reads: Vec<FactKey> = reads.into_iter().collect();
        reads.sort_unstable_by_key(|key| key.name());
        Self { rules, reads, versions_hash: versions_hash.end() }
    }

    /// Returns the enabled rules, by slot.
    pub fn iter(&self) -> impl Iterator<Item = &CompiledRule> {
        self.rules.iter().filter(|rule| rule.rule.enabled)
    }

    /// Returns all rules, including disabled ones, by slot.
    pub fn all(&self) -> &[CompiledRule] {
        &self.rules
    }

    /// Returns the rule at this slot, enabled or not.
    pub fn by_slot(&self, slot: usize) -> Option<&CompiledRule> {
        let index = self.rules.binary_search_by_key(&slot, |rule| rule.slot).ok()?;
        self.rules.get(index)
    }

    /// Returns the length of a posture's verdicts: the highest slot plus one.
    pub fn width(&self) -> usize {
        self.rules.last().map_or(0, |rule| rule.slot + 1)
    }

    /// Returns the maximum number of steps that the enabled rules take together on one asset.
    pub fn cost(&self) -> u64 {
        self.iter().map(CompiledRule::total_cost).fold(0, u64::saturating_add)
    }

    /// Returns the maximum number of assets to evaluate in one transaction. A transaction holds the posture lock, so it
    /// may take a few seconds at most, whatever the rules cost.
    pub(crate) fn batch_size(&self) -> i64 {
        let affordable = MAX_BATCH_STEPS / self.cost().max(1);
        i64::try_from(affordable).unwrap_or(MAX_BATCH).clamp(1, MAX_BATCH)
    }

    /// Returns the statement that selects all [`Facts`] that the rules read.
    pub fn select_facts(&self) -> &'static str {
        Facts::select(self.reads.iter().copied())
    }

    /// Returns a hash of the facts that the rules read, and of the rules' versions and parameters. As long as the hash
    /// stays the same, verdicts and evidence change only with time. Facts are hashed by name, so all server versions
    /// compute the same hash. Derived values are not part of the hash, because they change with time.
    pub fn facts_hash(&self, facts: &Facts) -> i64 {
        let mut hash = Hash::new();
        hash.bytes(&self.versions_hash.to_le_bytes());
        for key in &self.reads {
            hash.bytes(key.name().as_bytes());
            match facts.value(*key) {
                Some(value) => hash.value(value),
                None => hash.bytes(b"-"),
            }
        }
        // The hash must also cover the facts that determine whether a rule applies.
        hash.bytes(facts.asset_type.as_str().as_bytes());
        hash.bytes(facts.environment.as_str().as_bytes());
        hash.end()
    }

    /// Returns the enabled rules in the format of the column `compliance_run.rules`.
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
        AppliesTo, Definition, FactsRow, Severity, facts::tests::described,
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
        let of = |tags| Facts::of(&FactsRow { tags, ..described(b"{}") }).unwrap();
        let tagged = of(vec!["edge".to_owned()]);
        assert!(unread.applies(&tagged) && !unread.applies(&of(Vec::new())));
        assert_eq!(unread.verdict(&tagged, DateTime::UNIX_EPOCH), Verdict::Error);
    }
}
