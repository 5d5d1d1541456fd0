//! Drift: what broke and what was mended between two runs, and how the score went over the last ones.
//!
//! Both ends are times: what was broken at the end of a run follows from the findings, which changes write as well as
//! runs, so nothing that a run found needs to be kept beside them. A run of a part of the assets stands for its time only,
//! and its score is compared with those of the same part alone.

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

/// How many runs a trend shows at most.
pub const LONGEST_TREND: i32 = 100;

/// What changed from one run to a later one.
#[derive(Debug, Clone, PartialEq)]
pub struct Drift {
    /// The earlier run.
    pub from: Figures,
    /// The later run.
    pub to: Figures,
    since: DateTime<Utc>,
    until: DateTime<Utc>,
}

/// Which way something changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// It held, was not known or not there, and is broken.
    Failing,
    /// It was broken, and holds.
    Passing,
}

impl Drift {
    /// Between these runs.
    ///
    /// # Errors
    /// `NotFound` for a run that does not exist, `Invalid` where the second is not later, `Conflict` where one did not
    /// succeed.
    pub async fn between(tx: &Tx, from: RunId, to: RunId) -> Result<Self> {
        if from == to {
            return Err(Error::invalid("to", "is the same run as from: give a later one"));
        }
        let mut runs = Figures::of_runs(tx, &[from, to]).await?;
        let mut take = |id| runs.remove(&id).ok_or_else(|| Error::not_found("compliance run", id));
        let (from, to) = (take(from)?, take(to)?);
        let (since, until) = (ended(&from, "from")?, ended(&to, "to")?);
        if since >= until {
            return Err(Error::invalid("to", "ended before the run from: give them the other way"));
        }
        Ok(Self { from, to, since, until })
    }

    /// How many points the weighted score rose; none where one of the runs has none, or they are of different assets.
    pub fn score_change(&self) -> Option<f64> {
        score_change(&self.from, &self.to)
    }

    /// A page of what changed that way: the worst first, of equal ones the newest.
    pub async fn list(
        &self,
        tx: &Tx,
        direction: Direction,
        page: &PageRequest,
    ) -> Result<Page<Finding>> {
        self.listing(direction).page(tx, finding::SELECT, finding::WORST_FIRST, page).await
    }

    /// How much changed that way.
    pub async fn count(&self, tx: &Tx, direction: Direction) -> Result<i64> {
        self.listing(direction).count(tx, "finding").await
    }

    fn listing(&self, direction: Direction) -> Listing<'_> {
        let mut listing = Listing::default();
        match direction {
            Direction::Failing => {
                listing.broken_at(&self.until);
                listing.only("opened_at > ?", &self.since);
                // What was broken before and mended in between is no news.
                listing.only(
                    "NOT EXISTS (SELECT FROM finding AS other WHERE other.asset_id = finding.asset_id
                         AND other.rule_id = finding.rule_id AND other.opened_at <= ? AND other.ended_at > ?)",
                    &self.since,
                );
            }
            Direction::Passing => {
                listing.only("opened_at <= ? AND ended_at > ?", &self.since);
                listing.only("ended_at <= ? AND state = 'FIXED'", &self.until);
                // Broken again since, or gone out of scope since.
                listing.only(
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

/// When the run ended.
fn ended(run: &Figures, argument: &str) -> Result<DateTime<Utc>> {
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

/// How many points the weighted score rose between runs of the same assets.
pub(crate) fn score_change(from: &Figures, to: &Figures) -> Option<f64> {
    let weighted = |run: &Figures| run.score().and_then(|score| score.weighted);
    (from.scope == to.scope).then_some(())?;
    Some(weighted(to)? - weighted(from)?)
}

/// The scores of the last runs of all assets, oldest first; runs that judged nothing have none.
///
/// # Errors
/// `Invalid` for a number of runs outside 1 to [`LONGEST_TREND`].
pub async fn trend(tx: &Tx, last: i32) -> Result<Vec<(RunId, Option<Score>)>> {
    if !(1..=LONGEST_TREND).contains(&last) {
        let message = format!("is {last}, but a trend has between 1 and {LONGEST_TREND} runs");
        return Err(Error::invalid("last", message));
    }
    let runs = Figures::last(tx, i64::from(last)).await?;
    Ok(runs.iter().rev().map(|figures| (figures.run, figures.score())).collect())
}
