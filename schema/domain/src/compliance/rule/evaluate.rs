//! What a rule says of an asset at an instant, and the next instant at which time alone changes that.

use chrono::{DateTime, SubsecRound, Utc};
use serde_json::Value;

use super::{
    AppliesTo, Flip, RuleEvaluation, Verdict,
    cel::Compiled,
    facts::Facts,
    key::Key,
    program::{EvalError, View},
};
use crate::inventory::end_of_life::SupportedSystem;

impl AppliesTo {
    /// The names of its tags as they are compared.
    pub(super) fn folded_tags(&self) -> Vec<String> {
        self.tags.iter().map(|tag| tag.to_lowercase()).collect()
    }

    /// What it takes to tell.
    pub(super) fn reads(&self) -> impl Iterator<Item = Key> {
        let types = (!self.types.is_empty()).then_some(Key::TYPE);
        let environments = (!self.environments.is_empty()).then_some(Key::ENVIRONMENT);
        let tags = (!self.tags.is_empty()).then_some(Key::TAGS);
        [types, environments, tags].into_iter().flatten()
    }

    /// Whether an asset is among those; `tags` are its tags' folded names.
    pub(super) fn includes(&self, facts: &Facts, tags: &[String]) -> bool {
        (self.types.is_empty() || self.types.contains(&facts.asset_type))
            && (self.environments.is_empty() || self.environments.contains(&facts.environment))
            && (tags.is_empty() || facts.has_tag(tags))
    }
}

impl Compiled {
    /// The verdict and why there is none; `now` counts to the microsecond.
    pub(super) fn evaluate(&self, facts: &Facts, now: DateTime<Utc>) -> RuleEvaluation {
        match self.decide(facts, now.trunc_subsecs(6)) {
            Ok(true) => RuleEvaluation { verdict: Verdict::Pass, reason: None },
            Ok(false) => RuleEvaluation { verdict: Verdict::Fail, reason: None },
            Err(trouble) => RuleEvaluation {
                verdict: verdict(&Err(trouble.clone())),
                reason: Some(trouble.to_string()),
            },
        }
    }

    /// The next change of this verdict, which it has `now`, if nothing but time changes.
    pub(super) fn flip(&self, facts: &Facts, now: DateTime<Utc>, from: Verdict) -> Option<Flip> {
        let now = now.trunc_subsecs(6);
        self.critical(facts, now)
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

    /// The microseconds since 1970, from now on, at or after which something that the condition reads of the clock changes; in
    /// order.
    fn critical(&self, facts: &Facts, now: DateTime<Utc>) -> Vec<i64> {
        let view = View::new(facts, &self.condition, now);
        let timed_comparisons =
            self.condition.timed_comparisons.iter().filter_map(|timed_comparisons| {
                // The difference is `above` now, and grows by `slope`: where does it meet zero?
                let above = view.difference(timed_comparisons)?;
                let (above, slope) = (i128::from(above), i128::from(timed_comparisons.slope));
                let (distance, slope) = (-above * slope.signum(), slope.abs());
                let rounded_up = -(-distance).div_euclid(slope);
                let micros = i64::try_from(rounded_up).ok()?;
                (micros >= 0).then(|| now.timestamp_micros().checked_add(micros)).flatten()
            });
        let derived = (self.reads_support() && facts.value(Facts::support()).is_none())
            .then(|| facts.system().and_then(SupportedSystem::ends_at))
            .flatten()
            .map(|end| end.timestamp_micros());
        let mut critical: Vec<i64> = timed_comparisons.chain(derived).collect();
        critical.sort_unstable();
        critical
    }

    /// What to show beside a verdict; null where a fact is missing.
    pub(super) fn evidence(&self, facts: &Facts, now: DateTime<Utc>) -> Value {
        let now = now.trunc_subsecs(6);
        let shown = self.evidence.iter().map(|(name, program)| {
            (name.clone(), View::new(facts, program, now).shown(&program.expr))
        });
        Value::Object(shown.collect())
    }

    fn decide(&self, facts: &Facts, now: DateTime<Utc>) -> Result<bool, EvalError> {
        View::new(facts, &self.condition, now).is_true(&self.condition.expr)
    }

    /// The verdict alone.
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
