//! Writing what the evaluation of some assets changed: their postures, and the transitions of their findings.
//!
//! Whoever records takes the posture lock first and reads rules, waivers and facts after it.

use std::collections::HashMap;

use chrono::{DateTime, SubsecRound, Utc};

use super::{
    Posture,
    evaluate::{ChangedKeys, Difference, Evaluated, Evaluation},
    store,
    tally::Tally,
};
use crate::{
    base::{db::Tx, entity::AssetId, error::Result},
    compliance::{
        finding::transition::{First, Transitions},
        rule::{Facts, Ruleset},
        waiver::Waiver,
    },
};

/// Assets between two chances for others to run.
const YIELD_EVERY: usize = 32;

impl<'a> Evaluation<'a> {
    /// By these rules, and the waivers that hold now.
    pub(crate) async fn load(tx: &Tx, rules: &'a Ruleset, now: DateTime<Utc>) -> Result<Self> {
        let now = now.trunc_subsecs(6); // As Postgres keeps it.
        Ok(Self::new(rules, &Waiver::active(tx, now).await?, now))
    }

    /// Judges the assets of these facts, by what changed of each; writes what differs from what is kept, and forgets
    /// what is kept of others. The counts are of all of them.
    pub(crate) async fn record(
        &self,
        tx: &Tx,
        facts: &[Facts],
        mut kept: HashMap<AssetId, Posture>,
        reads: impl Fn(AssetId) -> ChangedKeys,
    ) -> Result<Tally> {
        let mut tally = Tally::new(self.rules().width());
        let first = if kept.is_empty() { First::of(tx, facts).await? } else { First::No };
        let mut transitions = Transitions::new(first);
        let mut written = Vec::new();
        for (place, facts) in facts.iter().enumerate() {
            if place % YIELD_EVERY == 0 {
                tokio::task::yield_now().await;
            }
            let before = kept.remove(&facts.asset);
            let Evaluated { posture, differences, is_other } =
                self.evaluate(facts, before.as_ref(), &reads(facts.asset));
            tally.add(&posture);
            add_transitions(&mut transitions, differences);
            if is_other {
                written.push(posture);
            }
        }
        // What is kept of assets that are not judged any more: retired, or deleted.
        let gone: Vec<Posture> = kept.into_values().collect();
        for posture in &gone {
            add_transitions(&mut transitions, self.leave(posture));
        }
        (tally.opened, tally.fixed) = transitions.record(tx, self.now()).await?;
        store::write(tx, &written, first).await?;
        store::forget(tx, &gone.iter().map(|posture| posture.asset).collect::<Vec<_>>()).await?;
        Ok(tally)
    }
}

fn add_transitions(transitions: &mut Transitions, differences: Vec<Difference>) {
    for difference in differences {
        match difference {
            Difference::Opened(broken) => transitions.opened.push(broken),
            Difference::Changed(broken) => transitions.changed.push(broken),
            Difference::Restated(restated) => transitions.restated.push(restated),
            Difference::Ended(ended) => transitions.ended.push(ended),
        }
    }
}
