//! The budget of an organization: the steps that its enabled rules may take together on one asset. A limit per rule
//! alone would allow 128 expensive rules, whose evaluation takes almost a second an asset.
//!
//! Rules that an earlier version saved go on above the budget, and so do builtin rules of a later version. Only a
//! change that raises the sum is refused.

use super::RuleRow;
use crate::{
    base::error::{Error, Result},
    compliance::rule::{CompiledRule, Rule, Ruleset},
};

/// Maximum number of steps per asset, for the enabled rules of an organization together.
const MAX_STEPS: u64 = 1_000_000;
/// Number of rules that a refusal names.
const NAMED: usize = 5;

/// Checks the budget of the saved rules with `rule` in place of its saved version.
///
/// # Errors
/// `Invalid` at `path` if the rules would exceed the budget, and take more steps than now.
pub(super) fn check(saved: &[RuleRow], rule: &Rule, path: &str) -> Result<()> {
    if !rule.enabled {
        return Ok(()); // A disabled rule takes no steps.
    }
    let replaced = saved.iter().find(|saved| saved.rule.id == rule.id);
    let slot = replaced.map_or_else(|| super::next_free_slot(saved), |saved| saved.slot);
    let version = replaced.map_or_else(crate::base::id::Id::new, |saved| saved.version);
    let row = RuleRow { rule: rule.clone(), slot, version, overrides: serde_json::Value::Null };
    let others = saved.iter().filter(|saved| saved.rule.id != rule.id).cloned();
    let after = Ruleset::of_saved(others.chain([row]).collect())?;
    let steps = after.cost();
    if steps <= MAX_STEPS || steps <= Ruleset::of_saved(saved.to_vec())?.cost() {
        return Ok(());
    }
    let mut most_expensive: Vec<&CompiledRule> = after.iter().collect();
    most_expensive.sort_by_key(|rule| std::cmp::Reverse(rule.total_cost()));
    let named = most_expensive.iter().take(NAMED);
    let named = named.map(|rule| format!("{} ({})", rule.rule.key, rule.total_cost()));
    let message = format!(
        "the enabled rules would take up to {steps} steps per asset together, at most {MAX_STEPS} are allowed: simplify or disable one of the most expensive: {}",
        named.collect::<Vec<_>>().join(", ")
    );
    Err(Error::invalid(path, message))
}
