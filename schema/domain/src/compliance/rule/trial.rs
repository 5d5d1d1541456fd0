//! A trial: the verdicts that a rule would give, without saving it.
//!
//! A trial evaluates at most 50,000 assets, in pages, so that it fits into one request. The result says if these were
//! all assets in operation.

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

/// Maximum number of assets in one trial.
const MAX_ASSETS: usize = 50_000;
/// Maximum number of assets on which a rule is tried before it is saved.
const SAMPLE_ASSETS: usize = 500;
/// Number of assets per page, small because several trials may hold a page at the same time.
const PAGE_ASSETS: usize = 500;
/// Number of assets to evaluate before yielding to other tasks of the runtime.
const YIELD_EVERY: usize = 200;
/// Maximum number of examples per verdict.
const MAX_EXAMPLES: usize = 5;

/// Result of a rule trial: the verdicts that the rule would give on the assets in operation. Requires `COMPLIANCE_RUN`.
#[derive(Debug, Clone, Default, PartialEq, SimpleObject)]
#[graphql(name = "RuleTrialRow", directive = requires::apply(Permission::ComplianceRun))]
pub struct Trial {
    /// Number of assets in the trial, including assets to which the rule does not apply.
    pub assets: i32,
    /// True if the trial covered all assets in operation.
    pub complete: bool,
    /// Number of `PASS` verdicts: the asset meets the rule.
    pub passed: i32,
    /// Number of `FAIL` verdicts; waivers are ignored.
    pub failed: i32,
    /// Number of `NOT_ASSESSED` verdicts, for which a fact is missing.
    pub not_assessed: i32,
    /// Number of `ERROR` verdicts: the rule could not be evaluated.
    pub errors: i32,
    /// Maximum number of steps to evaluate the condition on one asset; at most 100,000 are allowed.
    pub cost: i32,
    /// Names of the facts that the rule reads, such as `attr.disk_encrypted`.
    pub reads: Vec<String>,
    /// Up to five example assets for each verdict.
    #[graphql(skip)]
    pub examples: Vec<Example>,
}

/// Example asset of a rule trial, with its verdict and evidence. A trial is a dry run of a rule, which stores nothing.
/// Requires `COMPLIANCE_RUN`.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
#[graphql(name = "RuleExampleRow", directive = requires::apply(Permission::ComplianceRun))]
pub struct Example {
    /// The asset on which the rule was tried.
    #[graphql(skip)]
    pub asset: AssetId,
    /// Verdict of the rule on the asset.
    pub verdict: Verdict,
    /// Reason for the verdict: for `NOT_ASSESSED` the missing fact, i.e. a value of the asset that the rule reads; for
    /// `ERROR` the error message; null otherwise.
    pub reason: Option<String>,
    /// Values of the rule's evidence expressions: an object that maps each name to its value. Empty for a caller
    /// without `ASSET_READ`.
    pub evidence: Value,
}

impl Trial {
    /// Tries the rule on the assets in operation, as of `now`.
    ///
    /// # Errors
    /// `Invalid` with all errors in the rule.
    pub async fn run(tx: &Tx, input: &RuleInput, now: DateTime<Utc>) -> Result<Self> {
        Self::of(tx, &input.check()?, MAX_ASSETS, now).await
    }

    /// Tries the rule on the first 500 assets in operation. Rejects the rule if it gives at least one `Error` and
    /// neither a `Pass` nor a `Fail`.
    ///
    /// # Errors
    /// `Invalid` with the reason of the first `Error`.
    pub(super) async fn reject_if_never_evaluable(
        tx: &Tx,
        draft: &Draft,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let trial = Self::of(tx, draft, SAMPLE_ASSETS, now).await?;
        if trial.errors == 0 || trial.passed > 0 || trial.failed > 0 {
            return Ok(());
        }
        let mut reasons = trial.examples.iter().filter(|example| example.verdict == Verdict::Error);
        let reason = reasons.find_map(|example| example.reason.as_deref()).unwrap_or_default();
        let message = format!(
            "cannot be evaluated on any of the {} assets that have its facts, among the first {}: {reason}",
            trial.errors, trial.assets
        );
        Err(Error::invalid("condition", message))
    }

    async fn of(tx: &Tx, draft: &Draft, limit: usize, now: DateTime<Utc>) -> Result<Self> {
        let compiled = &draft.compiled;
        let scope = &draft.definition.applies_to;
        let tags = scope.lowercase_tags();
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
        let (mut evaluated_count, size) = (0, PAGE_ASSETS.min(limit));
        while evaluated_count < limit && !trial.complete {
            let page: Vec<Facts> =
                tx.all(&sql, &[&last, &i64::try_from(size).unwrap_or(i64::MAX)]).await?;
            evaluated_count += page.len();
            trial.complete = page.len() < size;
            for (index, facts) in page.iter().enumerate() {
                last = facts.asset;
                if scope.includes(facts, &tags) {
                    let evaluation = compiled.evaluate(facts, now);
                    if trial.count(evaluation.verdict) {
                        trial.examples.push(Example {
                            asset: facts.asset,
                            verdict: evaluation.verdict,
                            reason: evaluation.reason,
                            evidence: compiled.evidence(facts, now),
                        });
                    }
                }
                if index % YIELD_EVERY == YIELD_EVERY - 1 {
                    tokio::task::yield_now().await;
                }
            }
        }
        if !trial.complete {
            let more = format!("SELECT EXISTS (SELECT FROM asset WHERE {above}) AS more");
            trial.complete = !tx.one::<Row>(&more, &[&last]).await?.try_get::<_, bool>("more")?;
        }
        trial.assets = i32::try_from(evaluated_count).unwrap_or(i32::MAX);
        Ok(trial)
    }

    /// Counts one verdict. Returns true if the asset becomes an example of the verdict.
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
