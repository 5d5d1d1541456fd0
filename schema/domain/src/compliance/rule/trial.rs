//! What a rule would say of the assets, without saving it.
//!
//! It looks at 50,000 assets at limit, in pages, which a request has time for; and says whether those were all.

use async_graphql::SimpleObject;
use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Facts, RuleInput, Verdict, draft::Draft};
use crate::{
    access::{directive::requires, permission::Permission},
    base::{
        db::Tx,
        entity::AssetId,
        error::{Error, Result},
    },
    inventory::asset::LifecycleState,
};

/// Assets that one trial looks at.
const MAX_ASSETS: usize = 50_000;
/// Assets that a rule is tried on before it is saved.
const SAMPLE_ASSETS: usize = 500;
/// Assets of one page.
const PAGE_ASSETS: usize = 2_000;
/// Assets between two pauses for others.
const YIELD_EVERY: usize = 200;
/// Examples of each verdict.
const MAX_EXAMPLES: usize = 5;

/// What a rule would say of the assets in operation. Takes `COMPLIANCE_RUN`.
#[derive(Debug, Clone, Default, PartialEq, SimpleObject)]
#[graphql(name = "RuleTrialRow", directive = requires::apply(Permission::ComplianceRun))]
pub struct Trial {
    /// Assets that it was tried on; those that it is not about included.
    pub assets: i32,
    /// Whether those are all assets in operation.
    pub complete: bool,
    /// How many it passes.
    pub passed: i32,
    /// How many it fails.
    pub failed: i32,
    /// For how many a fact is missing.
    pub not_assessed: i32,
    /// How many it cannot evaluate.
    pub errors: i32,
    /// Steps that judging one asset takes at worst; 100,000 are allowed.
    pub cost: i32,
    /// What it reads, such as `attr.disk_encrypted`.
    pub reads: Vec<String>,
    /// Some of each verdict.
    #[graphql(skip)]
    pub examples: Vec<Example>,
}

/// One asset in a trial. Takes `COMPLIANCE_RUN`.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
#[graphql(name = "RuleExampleRow", directive = requires::apply(Permission::ComplianceRun))]
pub struct Example {
    /// Which one.
    #[graphql(skip)]
    pub asset: AssetId,
    /// What the rule says of it.
    pub verdict: Verdict,
    /// Why it could not be judged.
    pub reason: Option<String>,
    /// What the rule's evidence shows: an object, empty for who may not read assets.
    pub evidence: Value,
}

impl Trial {
    /// Tries the rule on the assets in operation, as of `now`.
    ///
    /// # Errors
    /// `Invalid` with all that is wrong with the rule.
    pub async fn run(tx: &Tx, input: &RuleInput, now: DateTime<Utc>) -> Result<Self> {
        Self::of(tx, &input.check()?, MAX_ASSETS, now).await
    }

    /// Refuses a rule that is an error on every asset whose facts are known, of some hundred.
    ///
    /// # Errors
    /// `Invalid` with the first asset's reason.
    pub(super) async fn refuse_hopeless(tx: &Tx, draft: &Draft, now: DateTime<Utc>) -> Result<()> {
        let trial = Self::of(tx, draft, SAMPLE_ASSETS, now).await?;
        if trial.errors == 0 || trial.passed > 0 || trial.failed > 0 {
            return Ok(());
        }
        let mut reasons = trial.examples.iter().filter(|example| example.verdict == Verdict::Error);
        let reason = reasons.find_map(|example| example.reason.as_deref()).unwrap_or_default();
        let message = format!(
            "cannot be judged on any of the {} assets that have its facts, of the first {}: {reason}",
            trial.errors, trial.assets
        );
        Err(Error::invalid("condition", message))
    }

    async fn of(tx: &Tx, draft: &Draft, limit: usize, now: DateTime<Utc>) -> Result<Self> {
        let compiled = &draft.compiled;
        let scope = &draft.definition.applies_to;
        let tags = scope.folded_tags();
        let mut trial = Self {
            cost: i32::try_from(compiled.cost).unwrap_or(i32::MAX),
            reads: compiled.reads().map(str::to_owned).collect(),
            ..Self::default()
        };
        let above = format!("{} AND asset.id > $1", LifecycleState::IN_OPERATION);
        let sql = format!(
            "{} WHERE {above} ORDER BY asset.id LIMIT $2",
            Facts::select(compiled.reads.iter().copied())
        );
        let mut last = AssetId::from(Uuid::nil());
        let (mut looked, size) = (0, PAGE_ASSETS.min(limit));
        while looked < limit && !trial.complete {
            let page: Vec<Facts> =
                tx.all(&sql, &[&last, &i64::try_from(size).unwrap_or(i64::MAX)]).await?;
            looked += page.len();
            trial.complete = page.len() < size;
            for (place, facts) in page.iter().enumerate() {
                last = facts.asset;
                if scope.includes(facts, &tags) {
                    let judgement = compiled.evaluate(facts, now);
                    if trial.count(judgement.verdict) {
                        trial.examples.push(Example {
                            asset: facts.asset,
                            verdict: judgement.verdict,
                            reason: judgement.reason,
                            evidence: compiled.evidence(facts, now),
                        });
                    }
                }
                if place % YIELD_EVERY == YIELD_EVERY - 1 {
                    tokio::task::yield_now().await;
                }
            }
        }
        if !trial.complete {
            let more = format!("SELECT EXISTS (SELECT FROM asset WHERE {above}) AS more");
            trial.complete = !tx.one::<Row>(&more, &[&last]).await?.try_get::<_, bool>("more")?;
        }
        trial.assets = i32::try_from(looked).unwrap_or(i32::MAX);
        Ok(trial)
    }

    /// Counts one; whether it is an example.
    fn count(&mut self, verdict: Verdict) -> bool {
        let count = match verdict {
            Verdict::Pass => &mut self.passed,
            Verdict::Fail => &mut self.failed,
            Verdict::NotAssessed => &mut self.not_assessed,
            Verdict::Error => &mut self.errors,
        };
        *count += 1;
        usize::try_from(*count).is_ok_and(|count| count <= MAX_EXAMPLES)
    }
}
