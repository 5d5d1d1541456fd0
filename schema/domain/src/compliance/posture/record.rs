//! Writes the result of evaluating some assets: their postures, and the transitions of their findings.
//!
//! The caller must acquire the posture lock before loading rules, waivers and facts.

use std::{collections::HashMap, sync::Arc};

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
        evaluator,
        finding::transition::{InsertMode, Transitions},
        rule::{Facts, Ruleset},
        waiver::Waiver,
    },
};

impl Evaluation {
    /// Loads the active waivers and returns an evaluation with these rules.
    pub(crate) async fn load(tx: &Tx, rules: &Arc<Ruleset>, now: DateTime<Utc>) -> Result<Self> {
        let now = now.trunc_subsecs(6); // Postgres stores microseconds.
        Ok(Self::new(rules, &Waiver::active(tx, now).await?, now))
    }

    /// Evaluates the assets to which the facts belong, and writes the postures and findings that differ from `stored`.
    /// Postures in `stored` of assets without facts are deleted, because these assets are no longer in operation.
    /// Returns the counts over all evaluated assets.
    pub(crate) async fn record(
        self,
        tx: &Tx,
        facts: Vec<Facts>,
        mut stored: HashMap<AssetId, Posture>,
        changed: impl Fn(AssetId) -> ChangedNames,
    ) -> Result<Tally> {
        let mut tally = Tally::new(self.rules().width());
        let insert_mode =
            if stored.is_empty() { InsertMode::of(tx, &facts).await? } else { InsertMode::Upsert };
        let mut transitions = Transitions::new(insert_mode);
        let mut changed_postures = Vec::new();
        let assets: Vec<_> = facts
            .into_iter()
            .map(|facts| (stored.remove(&facts.asset), changed(facts.asset), facts))
            .collect();
        let evaluation = Arc::new(self);
        let evaluating = Arc::clone(&evaluation);
        let results = Vec::with_capacity(assets.len());
        let results = evaluator::fold(tx.org(), assets, results, move |results, asset| {
            let (before, changed, facts) = asset;
            results.push(evaluating.evaluate(&facts, before.as_ref(), &changed));
        });
        for EvaluationResult { posture, differences, has_changed } in results.await {
            tally.add(&posture);
            add_transitions(&mut transitions, differences);
            if has_changed {
                changed_postures.push(posture);
            }
        }
        // Postures of assets that are no longer evaluated because they were retired or deleted.
        let removed: Vec<Posture> = stored.into_values().collect();
        for posture in &removed {
            add_transitions(&mut transitions, evaluation.end_all(posture));
        }
        (tally.opened, tally.fixed) = transitions.record(tx, evaluation.now()).await?;
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
