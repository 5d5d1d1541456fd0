//! A trial: the verdicts that a rule would give, without saving it.
//!
//! A trial evaluates at most 50,000 assets, in pages, so that it fits into one request. The result says if these were
//! all assets in operation.

use std::sync::Arc;

use async_graphql::SimpleObject;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Facts, RuleInput, Verdict, draft::Draft};
use crate::{
    access::{directive::requires, permission::Permission},
    base::{
        db::{Db, Tx},
        entity::{AssetId, OrganizationId},
        error::{Error, Result},
    },
    compliance::{evaluator, evidence::Evidence},
    inventory::asset::LifecycleState,
};

/// Maximum number of assets in one trial.
const MAX_ASSETS: usize = 50_000;
/// Maximum number of assets on which a rule is tried before it is saved.
const SAMPLE_ASSETS: usize = 500;
/// Maximum number of steps in that sample, so that saving a rule takes a second or two at most.
const SAMPLE_STEPS: u64 = 10_000_000;
/// Number of assets per page, small because several trials may hold a page at the same time.
const PAGE_ASSETS: usize = 500;
/// Maximum number of examples per verdict.
const MAX_EXAMPLES: usize = 5;

/// Result of a rule trial: the verdicts that the rule would give on the assets in operation. Requires `ASSET_READ`.
#[derive(Debug, Clone, Default, PartialEq, SimpleObject)]
#[graphql(name = "RuleTrialRow", directive = requires::apply(Permission::AssetRead))]
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
/// Requires `ASSET_READ`.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
#[graphql(name = "RuleExampleRow", directive = requires::apply(Permission::AssetRead))]
pub struct Example {
    /// The asset on which the rule was tried.
    #[graphql(skip)]
    pub asset: AssetId,
    /// Verdict of the rule on the asset.
    pub verdict: Verdict,
    /// Reason for the verdict: for `NOT_ASSESSED` the missing fact, i.e. a value of the asset that the rule reads; for
    /// `ERROR` the error message; null otherwise.
    pub reason: Option<String>,
    /// Values of the rule's evidence expressions.
    #[graphql(skip)]
    pub evidence: Evidence,
}

impl Trial {
    /// Tries the rule on the assets in operation, as of `now`. Each page of assets is read in a transaction of its own,
    /// so that no connection waits for the evaluation.
    ///
    /// # Errors
    /// `Invalid` with all errors in the rule.
    pub async fn run(
        db: &Db,
        org: OrganizationId,
        input: &RuleInput,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let mut attempt = Attempt::new(input.check()?, MAX_ASSETS, now);
        while !attempt.has_ended() {
            let tx = db.read(org).await?;
            let page = attempt.next_page(&tx).await?;
            tx.commit().await?;
            attempt.evaluate(org, page).await;
        }
        Ok(attempt.trial)
    }

    /// Tries the rule on the first 500 assets in operation, or fewer if the rule costs much. Rejects the rule if it
    /// gives at least one `Error` and neither a `Pass` nor a `Fail`.
    ///
    /// # Errors
    /// `Invalid` with the reason of the first `Error`.
    pub(super) async fn reject_if_never_evaluable(
        tx: &Tx,
        draft: Draft,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let affordable = SAMPLE_STEPS / draft.compiled.total_cost.max(1);
        let size = usize::try_from(affordable).map_or(SAMPLE_ASSETS, |n| n.clamp(1, SAMPLE_ASSETS));
        let mut attempt = Attempt::new(draft, size, now);
        let page = attempt.next_page(tx).await?;
        attempt.evaluate(tx.org(), page).await;
        let trial = attempt.trial;
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

/// A trial while it runs, page by page.
struct Attempt {
    trial: Trial,
    draft: Arc<Draft>,
    now: DateTime<Utc>,
    /// The last asset that was read.
    last: AssetId,
    /// Number of assets that the trial may still read.
    left: usize,
}

impl Attempt {
    fn new(draft: Draft, limit: usize, now: DateTime<Utc>) -> Self {
        let compiled = &draft.compiled;
        let trial = Trial {
            cost: i32::try_from(compiled.cost).unwrap_or(i32::MAX),
            reads: compiled.reads().map(str::to_owned).collect(),
            ..Trial::default()
        };
        let last = AssetId::from(Uuid::nil());
        Self { trial, draft: Arc::new(draft), now, last, left: limit }
    }

    fn has_ended(&self) -> bool {
        self.trial.complete || self.left == 0
    }

    /// Reads the next assets. Sets `complete` if no more are left.
    async fn next_page(&mut self, tx: &Tx) -> Result<Vec<Facts>> {
        let size = PAGE_ASSETS.min(self.left);
        let sql = format!(
            "{} WHERE {} AND asset.id > $1 ORDER BY asset.id LIMIT $2",
            Facts::select(self.draft.compiled.reads.iter().copied()),
            LifecycleState::IN_OPERATION
        );
        // One more than the page has room for shows whether assets are left.
        let limit = i64::try_from(size + 1).unwrap_or(i64::MAX);
        let mut page: Vec<Facts> = tx.all(&sql, &[&self.last, &limit]).await?;
        self.trial.complete = page.len() <= size;
        page.truncate(size);
        self.left -= page.len();
        self.trial.assets += i32::try_from(page.len()).unwrap_or(i32::MAX);
        self.last = page.last().map_or(self.last, |facts| facts.asset);
        Ok(page)
    }

    async fn evaluate(&mut self, org: OrganizationId, page: Vec<Facts>) {
        let (draft, now) = (Arc::clone(&self.draft), self.now);
        let tags = draft.definition.applies_to.lowercase_tags();
        let trial = std::mem::take(&mut self.trial);
        self.trial = evaluator::fold(org, page, trial, move |trial, facts| {
            if !draft.definition.applies_to.includes(&facts, &tags) {
                return;
            }
            let evaluation = draft.compiled.evaluate(&facts, now);
            if trial.count(evaluation.verdict) {
                trial.examples.push(Example {
                    asset: facts.asset,
                    verdict: evaluation.verdict,
                    reason: evaluation.reason,
                    evidence: draft.compiled.evidence(&facts, now),
                });
            }
        })
        .await;
    }
}
