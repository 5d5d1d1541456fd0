//! What a run found, in numbers: by which rules, over how many assets, with how many verdicts of each kind.

use std::collections::HashMap;

use async_graphql::SimpleObject;
use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio_postgres::Row;
use uuid::Uuid;

use super::Score;
use crate::{
    access::{directive::requires, permission::Permission},
    base::{
        db::{FromRow, Tx},
        entity::{RuleId, RuleVersionId, RunId},
        error::{Error, Result},
        id::Id,
        run_state::RunState,
    },
    compliance::{posture::Sums, rule::Severity},
};

/// How many verdicts there are of each kind. Takes `COMPLIANCE_READ`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, SimpleObject)]
#[graphql(name = "VerdictCounts", directive = requires::apply(Permission::ComplianceRead))]
pub struct Tally {
    /// The rule holds.
    pub passed: i64,
    /// The rule is broken.
    pub failed: i64,
    /// The rule is broken, and a waiver allows that.
    pub waived: i64,
    /// A fact that decides is missing.
    pub not_assessed: i64,
    /// The rule could not be judged.
    pub errors: i64,
}

impl Tally {
    /// All verdicts.
    pub const fn whole(&self) -> i64 {
        self.passed + self.failed + self.waived + self.not_assessed + self.errors
    }

    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            waived: self.waived + other.waived,
            not_assessed: self.not_assessed + other.not_assessed,
            errors: self.errors + other.errors,
        }
    }

    /// What it adds to sums where each verdict has this weight.
    #[must_use]
    pub fn weighing(&self, severity: Severity) -> Sums {
        let weight = i64::from(severity.weight());
        Sums {
            passed_weight: self.passed * weight,
            failed_weight: self.failed * weight,
            waived_weight: self.waived * weight,
            whole_weight: self.whole() * weight,
            ..Sums::default()
        }
    }
}

/// A rule that a run judged by, and what it said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judged {
    /// The rule.
    pub rule: RuleId,
    /// Its version then.
    pub version: RuleVersionId,
    /// How bad it was then to break it.
    pub severity: Severity,
    /// Its verdicts.
    pub tally: Tally,
}

/// What a run found, in numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// The run.
    pub run: RunId,
    /// Where it is in its life; while it goes on, the numbers grow.
    pub state: RunState,
    /// What its assets add up to.
    pub sums: Sums,
    /// By rule, in the order of rules.
    pub judged: Vec<Judged>,
    /// The rules as they were when it started.
    pub rules: Value,
    /// Its filter; none: all assets in operation.
    pub scope: Option<Value>,
    /// When it was started.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}

const SELECT: &str = "SELECT id, state, assets::bigint AS assets, scored::bigint AS scored, score_sum, passed_weight, failed_weight,
    waived_weight, whole_weight, rules, tallies, scope, started_at, finished_at,
    ARRAY(SELECT severity FROM jsonb_array_elements(rules) WITH ORDINALITY AS judged (by, place)
          LEFT JOIN rule_version ON rule_version.id = (by->>'version')::uuid ORDER BY place) AS severities
    FROM compliance_run";

impl FromRow for Figures {
    fn from_row(row: &Row) -> Result<Self> {
        let rules: Value = row.try_get("rules")?;
        let severities: Vec<Option<&str>> = row.try_get("severities")?;
        let tallies: Vec<i32> = row.try_get("tallies")?;
        Ok(Self {
            run: row.try_get("id")?,
            state: RunState::from_column("compliance_run", row.try_get("state")?)?,
            sums: Sums::from_row(row)?,
            judged: judged(&rules, &severities, &tallies)?,
            rules,
            scope: row.try_get("scope")?,
            started_at: row.try_get("started_at")?,
            finished_at: row.try_get("finished_at")?,
        })
    }
}

/// The rules of a run with their verdicts; a run of which no shard has ended has no tallies yet.
fn judged(rules: &Value, severities: &[Option<&str>], tallies: &[i32]) -> Result<Vec<Judged>> {
    let corrupt = || Error::Corrupt { table: "compliance_run", column: "rules" };
    let rules = rules.as_array().ok_or_else(corrupt)?;
    let rows = tallies.chunks_exact(5).map(Some).chain(std::iter::repeat(None));
    let judged = rules.iter().zip(severities).zip(rows).map(|((rule, severity), row)| {
        let id = |key: &str| rule[key].as_str().and_then(|id| id.parse::<Uuid>().ok());
        Ok(Judged {
            rule: Id::from(id("rule").ok_or_else(corrupt)?),
            version: Id::from(id("version").ok_or_else(corrupt)?),
            severity: Severity::from_column(severity.ok_or_else(corrupt)?)?,
            tally: row.map_or_else(Tally::default, |row| {
                let [passed, failed, waived, not_assessed, errors] =
                    [0, 1, 2, 3, 4].map(|place| i64::from(row[place]));
                Tally { passed, failed, waived, not_assessed, errors }
            }),
        })
    });
    judged.collect()
}

impl Figures {
    /// Those of the run.
    ///
    /// # Errors
    /// `NotFound` where there is no such run.
    pub async fn get(tx: &Tx, run: RunId) -> Result<Self> {
        let figures: Option<Self> = tx.opt(&format!("{SELECT} WHERE id = $1"), &[&run]).await?;
        figures.ok_or_else(|| Error::not_found("compliance run", run))
    }

    /// Those of these runs.
    pub async fn of_runs(tx: &Tx, runs: &[RunId]) -> Result<HashMap<RunId, Self>> {
        let figures: Vec<Self> = tx.all(&format!("{SELECT} WHERE id = ANY($1)"), &[&runs]).await?;
        Ok(figures.into_iter().map(|figures| (figures.run, figures)).collect())
    }

    /// Those of the last runs of all assets that succeeded, newest first.
    pub async fn last(tx: &Tx, runs: i64) -> Result<Vec<Self>> {
        let sql = format!(
            "{SELECT} WHERE state = 'SUCCEEDED' AND scope IS NULL ORDER BY id DESC LIMIT $1"
        );
        tx.all(&sql, &[&runs]).await
    }

    /// Those of the run of the same filter before it that succeeded.
    pub async fn before(&self, tx: &Tx) -> Result<Option<Self>> {
        let sql = format!(
            "{SELECT} WHERE state = 'SUCCEEDED' AND scope IS NOT DISTINCT FROM $2 AND id < $1 ORDER BY id DESC LIMIT 1"
        );
        tx.opt(&sql, &[&self.run, &self.scope]).await
    }

    /// The run's score; none where it did not judge all that it was to judge, or judged nothing.
    pub fn score(&self) -> Option<Score> {
        if self.state != RunState::Succeeded || self.sums.judged_weight() == 0 {
            return None;
        }
        let failing = self.judged.iter().map(|judged| (judged.severity, judged.tally.failed));
        Some(Score::of(&self.sums, failing, self.finished_at.unwrap_or(self.started_at)))
    }

    /// All its verdicts.
    pub fn tally(&self) -> Tally {
        self.judged.iter().fold(Tally::default(), |all, judged| all.and(judged.tally))
    }
}
