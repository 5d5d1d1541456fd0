//! A rule's verdict as of a given time, and the rule's next flip: a change of the verdict although no fact changes.

use chrono::{DateTime, SubsecRound, Utc};
use serde_json::Value;

use super::{
    AppliesTo, Flip, RuleEvaluation, Verdict,
    cel::Compiled,
    facts::Facts,
    key::FactKey,
    program::{Activation, EvalError},
};
use crate::{compliance::evidence::Evidence, inventory::end_of_life::OsRelease};

impl AppliesTo {
    /// Returns the names of the tags in lower case, for case-insensitive comparison.
    pub(super) fn lowercase_tags(&self) -> Vec<String> {
        self.tags.iter().map(|tag| tag.to_lowercase()).collect()
    }

    /// Returns the facts that determine whether the rule applies to an asset.
    pub(super) fn reads(&self) -> impl Iterator<Item = FactKey> {
        let types = (!self.types.is_empty()).then_some(FactKey::TYPE);
        let environments = (!self.environments.is_empty()).then_some(FactKey::ENVIRONMENT);
        let tags = (!self.tags.is_empty()).then_some(FactKey::TAGS);
        [types, environments, tags].into_iter().flatten()
    }

    /// Returns true if the rule applies to the asset. `tags` are the tag names of the rule's scope in lower case.
    pub(super) fn includes(&self, facts: &Facts, tags: &[String]) -> bool {
        (self.types.is_empty() || self.types.contains(&facts.asset_type))
            && (self.environments.is_empty() || self.environments.contains(&facts.environment))
            && (tags.is_empty() || facts.has_tag(tags))
    }
}

impl Compiled {
    /// Returns the verdict. `NotAssessed` and `Error` have a reason. `now` is truncated to microseconds.
    pub(super) fn evaluate(&self, facts: &Facts, now: DateTime<Utc>) -> RuleEvaluation {
        match self.decide(facts, now.trunc_subsecs(6)) {
            Ok(true) => RuleEvaluation { verdict: Verdict::Pass, reason: None },
            Ok(false) => RuleEvaluation { verdict: Verdict::Fail, reason: None },
            Err(error) => RuleEvaluation {
                verdict: verdict(&Err(error.clone())),
                reason: Some(error.to_string()),
            },
        }
    }

    /// Returns the next flip after `now`; `None` if no flip is expected. `from` is the verdict at `now`.
    pub(super) fn flip(&self, facts: &Facts, now: DateTime<Utc>, from: Verdict) -> Option<Flip> {
        let now = now.trunc_subsecs(6);
        self.possible_changes(facts, now)
            .into_iter()
            .flat_map(|at| [Some(at), at.checked_add(1)])
            .flatten()
            .filter_map(DateTime::from_timestamp_micros)
            .filter(|at| *at > now)
            .find_map(|at| {
                let to = verdict(&self.decide(facts, at));
                (to != from).then_some(Flip { at, to })
            })
    }

    /// Returns the maximum number of evaluations of the condition in [`Self::flip`]: one for the differences of all
    /// timed comparisons together, and two for each time at which the verdict may change.
    pub(super) fn max_evaluations_of_flip(&self) -> u64 {
        let times = self.condition.timed_comparisons.len() + usize::from(self.reads_os_supported());
        if times == 0 { 0 } else { 1 + 2 * times as u64 }
    }

    /// Returns the times from `now` on at which the verdict may change: at this microsecond or the next one. The times
    /// are in microseconds since 1970, in ascending order.
    fn possible_changes(&self, facts: &Facts, now: DateTime<Utc>) -> Vec<i64> {
        let activation = Activation::new(facts, &self.condition, now);
        let timed_comparisons = self.condition.timed_comparisons.iter().filter_map(|comparison| {
            // The difference of both sides is `above` microseconds now, and grows by `slope` microseconds per
            // microsecond. Compute the time at which the difference is zero.
            let above = activation.difference(comparison)?;
            let (above, slope) = (i128::from(above), i128::from(comparison.slope));
            let (distance, slope) = (-above * slope.signum(), slope.abs());
            let rounded_up = -(-distance).div_euclid(slope);
            let micros = i64::try_from(rounded_up).ok()?;
            (micros >= 0).then(|| now.timestamp_micros().checked_add(micros)).flatten()
        });
        let derived = (self.reads_os_supported()
            && facts.value(Facts::os_supported_key()).is_none())
        .then(|| facts.eol_release().and_then(OsRelease::ends_at))
        .flatten()
        .map(|end| end.timestamp_micros());
        let mut possible_changes: Vec<i64> = timed_comparisons.chain(derived).collect();
        possible_changes.sort_unstable();
        possible_changes
    }

    /// Returns the values of the evidence expressions by name; null for an expression that has no value, e.g. because a
    /// fact is missing.
    pub(super) fn evidence(&self, facts: &Facts, now: DateTime<Utc>) -> Evidence {
        let now = now.trunc_subsecs(6);
        let values = self.evidence.iter().map(|(name, program)| {
            (name.clone(), Activation::new(facts, program, now).eval_to_json(&program.expr))
        });
        Evidence::new(Value::Object(values.collect()))
    }

    fn decide(&self, facts: &Facts, now: DateTime<Utc>) -> Result<bool, EvalError> {
        Activation::new(facts, &self.condition, now).eval_bool(&self.condition.expr)
    }

    /// Returns the verdict without the reason.
    pub(super) fn verdict(&self, facts: &Facts, now: DateTime<Utc>) -> Verdict {
        verdict(&self.decide(facts, now.trunc_subsecs(6)))
    }
}

const fn verdict(decided: &Result<bool, EvalError>) -> Verdict {
    match decided {
        Ok(true) => Verdict::Pass,
        Ok(false) => Verdict::Fail,
        Err(EvalError::Missing(_)) => Verdict::NotAssessed,
        Err(EvalError::Other(_)) => Verdict::Error,
    }
}
