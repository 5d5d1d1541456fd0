//! Drift: rules that began to fail or to pass between two runs, and the trend of the score over the last runs.
//!
//! Drift compares two times: the ends of the two runs. The failures at such a time follow from the findings, which runs
//! and re-evaluations write, so a run stores no list of failures. Drift always covers the findings of all assets, even
//! if a run had a scope. Scores are compared only between runs of the same scope.

use chrono::{DateTime, Utc};

use crate::{
    base::{
        db::Tx,
        entity::RunId,
        error::{Error, Result},
        listing::Listing,
        page::{Page, PageRequest},
        run_state::RunState,
    },
    compliance::{
        finding::{self, Finding},
        score::{Figures, Score},
    },
};

/// Maximum number of runs in a trend.
pub const MAX_TREND_RUNS: i32 = 100;

/// The changes from one run to a later one.
#[derive(Debug, Clone, PartialEq)]
pub struct Drift {
    /// Figures of the earlier run.
    pub from: Figures,
    /// Figures of the later run.
    pub to: Figures,
    since: DateTime<Utc>,
    until: DateTime<Utc>,
}

/// Direction in which a rule's verdict changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The rule passed, was not assessed or did not apply, and now fails.
    Failing,
    /// The rule failed and now passes.
    Passing,
}

impl Drift {
    /// Loads both runs and compares the times at which they ended.
    ///
    /// # Errors
    /// `NotFound` for a run that does not exist, `Invalid` if the run `to` did not end after the run `from`, `Conflict`
    /// if one of the runs did not succeed.
    pub async fn between(tx: &Tx, from: RunId, to: RunId) -> Result<Self> {
        if from == to {
            return Err(Error::invalid("to", "is the same run as `from`; give a later run"));
        }
        let mut runs = Figures::of_runs(tx, &[from, to]).await?;
        let mut remove_run =
            |id| runs.remove(&id).ok_or_else(|| Error::not_found("compliance run", id));
        let (from, to) = (remove_run(from)?, remove_run(to)?);
        let (since, until) = (end_of_run(&from, "from")?, end_of_run(&to, "to")?);
        if since >= until {
            return Err(Error::invalid(
                "to",
                "did not end after the run `from`; swap the two runs",
            ));
        }
        Ok(Self { from, to, since, until })
    }

    /// Returns the change of the weighted score in percentage points, negative if the score fell. `None` if one of the
    /// runs has no score or the runs differ in scope.
    pub fn score_change(&self) -> Option<f64> {
        score_change(&self.from, &self.to)
    }

    /// Returns a page of the findings that changed in this direction: highest severity first, then newest first.
    pub async fn list(
        &self,
        tx: &Tx,
        direction: Direction,
        page: &PageRequest,
    ) -> Result<Page<Finding>> {
        self.listing(direction).page(tx, finding::SELECT, finding::WORST_FIRST, page).await
    }

    /// Counts the findings that changed in this direction.
    pub async fn count(&self, tx: &Tx, direction: Direction) -> Result<i64> {
        self.listing(direction).count(tx, "finding").await
    }

    fn listing(&self, direction: Direction) -> Listing<'_> {
        let mut listing = Listing::default();
        match direction {
            Direction::Failing => {
                listing.live_at(&self.until);
                listing.filter("opened_at > ?", &self.since);
                // A failure at both ends is no change, even if it was fixed in between.
                listing.filter(
                    "NOT EXISTS (SELECT FROM finding AS other WHERE other.asset_id = finding.asset_id
                         AND other.rule_id = finding.rule_id AND other.opened_at <= ? AND other.ended_at > ?)",
                    &self.since,
                );
            }
            Direction::Passing => {
                listing.filter("opened_at <= ? AND ended_at > ?", &self.since);
                listing.filter("ended_at <= ? AND state = 'FIXED'", &self.until);
                // Leaves out rules that fail again at the end, and rules that went out of scope after the fix.
                listing.filter(
                    "NOT EXISTS (SELECT FROM finding AS other WHERE other.asset_id = finding.asset_id
                         AND other.rule_id = finding.rule_id AND other.opened_at >= finding.ended_at AND other.opened_at <= ?
                         AND (other.ended_at IS NULL OR other.ended_at > ? OR other.state <> 'FIXED'))",
                    &self.until,
                );
            }
        }
        listing
    }
}

/// Returns the time at which the run ended; `Conflict` if it did not succeed.
fn end_of_run(run: &Figures, argument: &str) -> Result<DateTime<Utc>> {
    let corrupt = Error::Corrupt { table: "compliance_run", column: "finished_at" };
    match run.state {
        RunState::Succeeded => run.finished_at.ok_or(corrupt),
        RunState::Queued | RunState::Running | RunState::Failed | RunState::Cancelled => {
            Err(Error::Conflict(format!(
                "the run {argument} did not succeed, so there is nothing to compare: it is {}",
                run.state.as_str()
            )))
        }
    }
}

/// Returns the change of the weighted score in percentage points. `None` if one of the runs has no score or the runs
/// differ in scope.
pub(crate) fn score_change(from: &Figures, to: &Figures) -> Option<f64> {
    let weighted = |run: &Figures| run.score().and_then(|score| score.weighted);
    (from.scope == to.scope).then_some(())?;
    Some(weighted(to)? - weighted(from)?)
}

/// Returns the scores of the most recent successful runs of all assets, oldest first. A run that assessed no rule on
/// any asset has no score.
///
/// # Errors
/// `Invalid` for a number of runs outside 1 to [`MAX_TREND_RUNS`].
pub async fn trend(tx: &Tx, last: i32) -> Result<Vec<(RunId, Option<Score>)>> {
    if !(1..=MAX_TREND_RUNS).contains(&last) {
        let message = format!("is {last}; a trend covers 1 to {MAX_TREND_RUNS} runs");
        return Err(Error::invalid("last", message));
    }
    let runs = Figures::last(tx, i64::from(last)).await?;
    Ok(runs.iter().rev().map(|figures| (figures.run, figures.score())).collect())
}
