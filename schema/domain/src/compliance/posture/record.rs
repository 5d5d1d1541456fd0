//! Writes the result of evaluating some assets: their postures, and the transitions of their findings.
//!
//! The caller must acquire the posture lock before loading rules, waivers and facts.

use std::collections::HashMap;

use chrono::{DateTime, SubsecRound, Utc};

use super::{
    Posture,
    evaluate::{ChangedNames, Difference, Evaluation, EvaluationResult},
    store,
    tally::Tally,
};
use crate::{
    base::{db::Tx, entity::AssetId, error::Result},
    compliance::{
        finding::transition::{InsertMode, Transitions},
        rule::{Facts, Ruleset},
        waiver::Waiver,
    },
};

/// Number of assets to evaluate before yielding to other tasks of the runtime.
const YIELD_EVERY: usize = 32;

impl<'a> Evaluation<'a> {
    /// Loads the active waivers and returns an evaluation with these rules.
    pub(crate) async fn load(tx: &Tx, rules: &'a Ruleset, now: DateTime<Utc>) -> Result<Self> {
        let now = now.trunc_subsecs(6); // Postgres stores microseconds.
        Ok(Self::new(rules, &Waiver::active(tx, now).await?, now))
    }

    /// Evaluates the assets to which the facts belong, and writes the postures and findings that differ from `stored`.
    /// Postures in `stored` of assets without facts are deleted, because these assets are no longer in operation.
    /// Returns the counts over all evaluated assets.
    pub(crate) async fn record(
        &self,
        tx: &Tx,
        facts: &[Facts],
        mut stored: HashMap<AssetId, Posture>,
        changed: impl Fn(AssetId) -> ChangedNames,
    ) -> Result<Tally> {
        let mut tally = Tally::new(self.rules().width());
        let insert_mode =
            if stored.is_empty() { InsertMode::of(tx, facts).await? } else { InsertMode::Upsert };
        let mut transitions = Transitions::new(insert_mode);
        let mut changed_postures = Vec::new();
        for (index, facts) in facts.iter().enumerate() {
            if index % YIELD_EVERY == 0 {
                tokio::task::yield_now().await;
            }
            let before = stored.remove(&facts.asset);
            let EvaluationResult { posture, differences, has_changed } =
                self.evaluate(facts, before.as_ref(), &changed(facts.asset));
            tally.add(&posture);
            add_transitions(&mut transitions, differences);
            if has_changed {
                changed_postures.push(posture);
            }
        }
        // Postures of assets that are no longer evaluated because they were retired or deleted.
        let removed: Vec<Posture> = stored.into_values().collect();
        for posture in &removed {
            add_transitions(&mut transitions, self.end_all(posture));
        }
        (tally.opened, tally.fixed) = transitions.record(tx, self.now()).await?;
        store::write(tx, &changed_postures, insert_mode).await?;
        store::delete(tx, &removed.iter().map(|posture| posture.asset).collect::<Vec<_>>()).await?;
        Ok(tally)
    }
}

fn add_transitions(transitions: &mut Transitions, differences: Vec<Difference>) {
    for difference in differences {
        match difference {
            Difference::Opened(failure) => transitions.opened.push(failure),
            Difference::Changed(failure) => transitions.changed.push(failure),
            Difference::Unevaluable(unevaluable) => transitions.unevaluable.push(unevaluable),
            Difference::Ended(ended) => transitions.ended.push(ended),
        }
    }
}
