//! The report of a run: its score and what that is made of, by whom it is dragged down, and what would raise it most.
//! (`report/summary`: what follows from the numbers; `report/file`: what failed, as CSV.)
//!
//! Numbers are those that the run added up. What failed at its end is asked of the findings, which tell any time: that is the
//! same whenever it is asked, but for what was of an asset deleted since. Severity, evidence, and whether a waiver allows it
//! are as of now, or of the end of what ended since (it counts as failed then). Where there was no run yet there is a report
//! without numbers, and no error.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use tokio_postgres::Row;

use crate::{
    access::organization::Organization,
    base::{
        db::{FromRow, Tx},
        entity::{AssetId, RunId},
        error::{Error, Result},
        listing::{Listing, Order, Side},
        page::{Page, PageRequest},
        run_state::RunState,
    },
    compliance::{
        drift,
        finding::{self, Finding},
        posture::Sums,
        rule::{Rule, Ruleset},
        scope::{AssetScope, ScopeValues},
        score::{Figures, Score, SeverityCount, Tally},
    },
};

mod file;
mod summary;

pub use file::{Assets, FindingFile};
pub use summary::{Family, Remediation};

/// How many of the worst assets a report names at most.
pub const MOST_WORST: i32 = 100;

/// What a run found.
#[derive(Debug, Clone)]
pub struct Report {
    /// When it was made.
    pub generated_at: DateTime<Utc>,
    /// The organization's name.
    pub organization: String,
    /// The run, in numbers; none where none succeeded yet.
    pub figures: Option<Figures>,
    /// The run of the same assets before it.
    pub previous: Option<Figures>,
    /// The rules that it judged by as they were then, in their order.
    pub rules: Vec<Rule>,
}

/// An asset that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorstAsset {
    /// Which one.
    pub asset: AssetId,
    /// How many rules it broke.
    pub failed: i64,
    /// How much these weigh.
    pub failed_weight: i64,
}

impl FromRow for WorstAsset {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            asset: row.try_get("asset_id")?,
            failed: row.try_get("failed")?,
            failed_weight: row.try_get("failed_weight")?,
        })
    }
}

impl Report {
    /// That of the run; without one, that of the newest of all assets that succeeded.
    ///
    /// # Errors
    /// `NotFound` for a run that does not exist, `Conflict` where it did not succeed, or has not yet.
    pub async fn of(tx: &Tx, run: Option<RunId>, now: DateTime<Utc>) -> Result<Self> {
        let figures = match run {
            Some(run) => Some(succeeded(Figures::get(tx, run).await?)?),
            None => Figures::last(tx, 1).await?.pop(),
        };
        let (previous, rules) = match &figures {
            Some(figures) => (figures.before(tx).await?, rules_of(tx, figures).await?),
            None => (None, Vec::new()),
        };
        let organization = Organization::current(tx).await?.name;
        Ok(Self { generated_at: now, organization, figures, previous, rules })
    }

    /// The run's score; none where there is no run, or it judged nothing.
    pub fn score(&self) -> Option<Score> {
        self.figures.as_ref().and_then(Figures::score)
    }

    /// The score of the run before it.
    pub fn previous_score(&self) -> Option<Score> {
        self.previous.as_ref().and_then(Figures::score)
    }

    /// How many points the weighted score rose since the run before it.
    pub fn score_change(&self) -> Option<f64> {
        drift::score_change(self.previous.as_ref()?, self.figures.as_ref()?)
    }

    /// Failures by severity: all four, the least first.
    pub fn by_severity(&self) -> Vec<SeverityCount> {
        let failing = self.judged().iter().map(|judged| (judged.severity, judged.tally.failed));
        Score::of(&Sums::default(), failing, self.generated_at).by_severity
    }

    /// All verdicts of the run.
    pub fn tally(&self) -> Tally {
        self.figures.as_ref().map(Figures::tally).unwrap_or_default()
    }

    /// The assets whose failures weigh most, up to so many; without what a waiver allows.
    ///
    /// # Errors
    /// `Invalid` for a number outside 1 to [`MOST_WORST`].
    pub async fn worst_assets(&self, tx: &Tx, first: i32) -> Result<Vec<WorstAsset>> {
        if !(1..=MOST_WORST).contains(&first) {
            let message =
                format!("is {first}, but a report names between 1 and {MOST_WORST} assets");
            return Err(Error::invalid("first", message));
        }
        let Some(ended_at) = self.ended_at() else { return Ok(Vec::new()) };
        let scope = self.scope()?;
        let scope = ScopeValues::of(scope.as_ref());
        let mut failing = scope.about();
        failing.broken_at(&ended_at);
        failing.holds("state <> 'WAIVED'");
        let (filter, params) = failing.into_sql();
        let sql = format!(
            "SELECT asset_id, count(*) AS failed, sum(weight) AS failed_weight FROM finding WHERE {filter}
             GROUP BY asset_id ORDER BY failed_weight DESC, failed DESC, asset_id LIMIT {first}"
        );
        tx.all(&sql, &params).await
    }

    /// A page of what failed at the run's end: the worst first, of equal ones the newest.
    pub async fn findings(&self, tx: &Tx, page: &PageRequest) -> Result<Page<Finding>> {
        self.findings_in(tx, finding::WORST_FIRST, page).await
    }

    /// As [`Report::findings`], the newest first: an order that nothing changes while pages are read.
    async fn findings_by_id(&self, tx: &Tx, page: &PageRequest) -> Result<Page<Finding>> {
        self.findings_in(tx, finding::NEWEST_FIRST, page).await
    }

    async fn findings_in(
        &self,
        tx: &Tx,
        order: Order,
        page: &PageRequest,
    ) -> Result<Page<Finding>> {
        let Some(ended_at) = self.ended_at() else { return Ok(Page::EMPTY) };
        let scope = self.scope()?;
        let scope = ScopeValues::of(scope.as_ref());
        let (listing, sides) = failing_at(&ended_at, scope.about());
        listing.page_of(tx, sides, order, page).await
    }

    /// How much failed at the run's end.
    pub async fn count_findings(&self, tx: &Tx) -> Result<i64> {
        let Some(ended_at) = self.ended_at() else { return Ok(0) };
        let scope = self.scope()?;
        let scope = ScopeValues::of(scope.as_ref());
        let (listing, sides) = failing_at(&ended_at, scope.about());
        listing.count_of(tx, sides).await
    }

    /// The run's filter; what it lets through now is taken for what it did then.
    fn scope(&self) -> Result<Option<AssetScope>> {
        let scope = self.figures.as_ref().and_then(|figures| figures.scope.as_ref());
        AssetScope::from_column(scope)
    }

    fn ended_at(&self) -> Option<DateTime<Utc>> {
        self.figures.as_ref().and_then(|figures| figures.finished_at)
    }
}

/// What of the listed failed at that time. What still does and what ended since are sides of their own, so that the order of the first
/// comes from its index.
fn failing_at<'a>(at: &'a DateTime<Utc>, mut listing: Listing<'a>) -> (Listing<'a>, Vec<Side<'a>>) {
    listing.only("opened_at <= ?", at);
    let (columns, from) = (finding::COLUMNS, "finding");
    let live = Side { columns, from, only: Some(("ended_at IS NULL", None)) };
    let ended = Side {
        columns,
        from,
        only: Some(("ended_at > ? AND state IN ('FIXED', 'OUT_OF_SCOPE')", Some(at))),
    };
    (listing, vec![live, ended])
}

/// The run, if it judged all that it was to judge.
fn succeeded(figures: Figures) -> Result<Figures> {
    match figures.state {
        RunState::Succeeded => Ok(figures),
        RunState::Queued | RunState::Running => Err(Error::Conflict(format!(
            "the run has not ended yet, so there is no report of it: it is {}",
            figures.state.as_str()
        ))),
        RunState::Failed | RunState::Cancelled => Err(Error::Conflict(format!(
            "the run did not come to its end, so there is no report of it: it is {}",
            figures.state.as_str()
        ))),
    }
}

/// The rules that a run judged by as they were then, in the order of its numbers.
async fn rules_of(tx: &Tx, figures: &Figures) -> Result<Vec<Rule>> {
    let rules = Ruleset::of_run(tx, &figures.rules).await?;
    let mut rules: HashMap<_, _> =
        rules.all().iter().map(|ruled| (ruled.version, ruled.rule.clone())).collect();
    let corrupt = Error::Corrupt { table: "compliance_run", column: "rules" };
    let rules: Option<_> =
        figures.judged.iter().map(|judged| rules.remove(&judged.version)).collect();
    rules.ok_or(corrupt)
}
