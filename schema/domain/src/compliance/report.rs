//! The report of a successful run: score, verdicts, failures, the assets with the most failures, and the fixes that
//! would raise the score most. `report/summary` derives control families and remediations from the run's figures;
//! `report/file` writes the failures as CSV.
//!
//! Scores and counts come from the figures that the run stored. The list of failures at the end of the run comes from
//! the findings, which record every failure with its start and end. The list is the same whenever the report is
//! generated, except that findings of deleted assets are missing. Severity, evidence and waiver of a finding are the
//! current ones. If the finding has ended since, they are those at its end, and the finding counts as failed, not as
//! waived. Before the first successful run the report has no figures; this is not an error.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use tokio_postgres::Row;

use crate::{
    access::organization::Organization,
    base::{
        db::{FromRow, Tx},
        entity::{AssetId, RunId},
        error::{Error, Result},
        listing::{ListedTable, Listing, Order},
        page::{Page, PageRequest},
        run_state::RunState,
    },
    compliance::{
        drift,
        finding::{self, Finding},
        posture::Sums,
        rule::{Rule, Ruleset},
        scope::{AssetScope, ScopeValues},
        score::{Figures, Score, SeverityCount, VerdictCounts},
    },
};

mod file;
mod summary;

pub use file::FindingFile;
pub use summary::{Family, Remediation};

/// Maximum number of assets in the list of worst assets.
pub const MAX_WORST_ASSETS: i32 = 100;

/// The report of a successful run.
#[derive(Debug, Clone)]
pub struct Report {
    /// Time at which the report was generated.
    pub generated_at: DateTime<Utc>,
    /// Name of the organization, as it is now.
    pub organization: String,
    /// The run's figures; `None` before the first successful run.
    pub figures: Option<Figures>,
    /// Figures of the previous successful run of the same scope, if one exists.
    pub previous: Option<Figures>,
    /// The rules in the versions that the run used, in the order of its tallies.
    pub rules: Vec<Rule>,
}

/// An asset with failures, and the total weight of the failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorstAsset {
    /// The asset that failed rules.
    pub asset: AssetId,
    /// Number of rules that the asset failed without a waiver.
    pub failed: i64,
    /// Total weight of these failures.
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
    /// Loads the report of this run; without `run`, of the newest successful run of all assets.
    ///
    /// # Errors
    /// `NotFound` for a run that does not exist, `Conflict` if the run did not succeed or has not ended.
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

    /// Returns the run's score; `None` before the first successful run, and if the run assessed no rule on any asset.
    pub fn score(&self) -> Option<Score> {
        self.figures.as_ref().and_then(Figures::score)
    }

    /// Returns the score of the previous successful run of the same scope.
    pub fn previous_score(&self) -> Option<Score> {
        self.previous.as_ref().and_then(Figures::score)
    }

    /// Returns the change of the weighted score since the previous run, in percentage points, negative if the score
    /// fell.
    pub fn score_change(&self) -> Option<f64> {
        drift::score_change(self.previous.as_ref()?, self.figures.as_ref()?)
    }

    /// Returns the number of failures without a waiver, by severity: all four severities, lowest first.
    pub fn by_severity(&self) -> Vec<SeverityCount> {
        let failing = self.rule_tallies().iter().map(|rule| (rule.severity, rule.tally.failed));
        Score::of(&Sums::default(), failing, self.generated_at).by_severity
    }

    /// Returns the counts of all verdicts of the run.
    pub fn tally(&self) -> VerdictCounts {
        self.figures.as_ref().map(Figures::tally).unwrap_or_default()
    }

    /// Returns up to `first` assets with the highest total weight of failures, worst first. Waived failures do not
    /// count.
    ///
    /// # Errors
    /// `Invalid` for a number outside 1 to [`MAX_WORST_ASSETS`].
    pub async fn worst_assets(&self, tx: &Tx, first: i32) -> Result<Vec<WorstAsset>> {
        if !(1..=MAX_WORST_ASSETS).contains(&first) {
            let message = format!("is {first}; a report lists 1 to {MAX_WORST_ASSETS} assets");
            return Err(Error::invalid("first", message));
        }
        let Some(ended_at) = self.ended_at() else { return Ok(Vec::new()) };
        let scope = self.scope()?;
        let scope = ScopeValues::of(scope.as_ref());
        let mut failing = scope.rows_of_assets();
        failing.live_at(&ended_at);
        failing.with_constant("state <> 'WAIVED'");
        let (filter, params) = failing.into_sql();
        let sql = format!(
            "SELECT asset_id, count(*) AS failed, sum(weight) AS failed_weight FROM finding WHERE {filter}
             GROUP BY asset_id ORDER BY failed_weight DESC, failed DESC, asset_id LIMIT {first}"
        );
        tx.all(&sql, &params).await
    }

    /// Returns a page of the findings that were live at the end of the run: highest severity first, then newest first.
    pub async fn findings(&self, tx: &Tx, page: &PageRequest) -> Result<Page<Finding>> {
        self.findings_in(tx, finding::WORST_FIRST, page).await
    }

    /// Like [`Report::findings`], but newest first. This order does not change between pages.
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
        let (listing, sides) = failing_at(&ended_at, scope.rows_of_assets());
        listing.page_of_tables(tx, sides, order, page).await
    }

    /// Counts the findings that were live at the end of the run.
    pub async fn count_findings(&self, tx: &Tx) -> Result<i64> {
        let Some(ended_at) = self.ended_at() else { return Ok(0) };
        let scope = self.scope()?;
        let scope = ScopeValues::of(scope.as_ref());
        let (listing, sides) = failing_at(&ended_at, scope.rows_of_assets());
        listing.count_tables(tx, sides).await
    }

    /// Returns the run's scope. The scope is applied to the current assets, so it may match other assets than during
    /// the run.
    fn scope(&self) -> Result<Option<AssetScope>> {
        let scope = self.figures.as_ref().and_then(|figures| figures.scope.as_ref());
        AssetScope::from_column(scope)
    }

    fn ended_at(&self) -> Option<DateTime<Utc>> {
        self.figures.as_ref().and_then(|figures| figures.finished_at)
    }
}

/// Restricts a listing to findings that were live at this time. Findings that are still live and findings that have
/// ended since are separate sides of the query, so that an index yields the still live ones in order.
fn failing_at<'a>(
    at: &'a DateTime<Utc>,
    mut listing: Listing<'a>,
) -> (Listing<'a>, Vec<ListedTable<'a>>) {
    listing.filter("opened_at <= ?", at);
    let (columns, from) = (finding::COLUMNS, "finding");
    let live = ListedTable { columns, from, filter: Some(("ended_at IS NULL", None)) };
    let ended = ListedTable {
        columns,
        from,
        filter: Some(("ended_at > ? AND state IN ('FIXED', 'OUT_OF_SCOPE')", Some(at))),
    };
    (listing, vec![live, ended])
}

/// Returns the run if it succeeded; otherwise `Conflict`.
fn succeeded(figures: Figures) -> Result<Figures> {
    match figures.state {
        RunState::Succeeded => Ok(figures),
        RunState::Queued | RunState::Running => Err(Error::Conflict(format!(
            "the run has not ended yet, so it has no report: it is {}",
            figures.state.as_str()
        ))),
        RunState::Failed | RunState::Cancelled => Err(Error::Conflict(format!(
            "the run did not succeed, so it has no report: it is {}",
            figures.state.as_str()
        ))),
    }
}

/// Returns the rules in the versions that the run used, in the order of its tallies.
async fn rules_of(tx: &Tx, figures: &Figures) -> Result<Vec<Rule>> {
    let rules = Ruleset::of_run(tx, &figures.rules).await?;
    let mut rules: HashMap<_, _> =
        rules.all().iter().map(|rule| (rule.version, rule.rule.clone())).collect();
    let corrupt = Error::Corrupt { table: "compliance_run", column: "rules" };
    let rules: Option<_> =
        figures.rule_tallies.iter().map(|rule| rules.remove(&rule.version)).collect();
    rules.ok_or(corrupt)
}
