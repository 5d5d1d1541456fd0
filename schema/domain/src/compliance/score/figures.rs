//! The figures of a run: its rules, the sums over its assets, and the number of verdicts of each kind.

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

/// Number of verdicts by result. Requires `COMPLIANCE_READ`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, SimpleObject)]
#[graphql(name = "VerdictCounts", directive = requires::apply(Permission::ComplianceRead))]
pub struct VerdictCounts {
    /// Number of `PASS` verdicts: the asset meets the rule.
    pub passed: i64,
    /// Number of `FAIL` verdicts without a waiver.
    pub failed: i64,
    /// Number of waived `FAIL` verdicts.
    pub waived: i64,
    /// Number of `NOT_ASSESSED` verdicts, for which a fact is missing.
    pub not_assessed: i64,
    /// Number of `ERROR` verdicts: the rule could not be evaluated.
    pub errors: i64,
}

impl VerdictCounts {
    /// Returns the number of all verdicts.
    pub const fn total(&self) -> i64 {
        self.passed + self.failed + self.waived + self.not_assessed + self.errors
    }

    /// Returns the sum of both tallies.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            waived: self.waived + other.waived,
            not_assessed: self.not_assessed + other.not_assessed,
            errors: self.errors + other.errors,
        }
    }

    /// Returns the weights of these verdicts, which all have this severity.
    #[must_use]
    pub fn weighted_by(&self, severity: Severity) -> Sums {
        let weight = i64::from(severity.weight());
        Sums {
            passed_weight: self.passed * weight,
            failed_weight: self.failed * weight,
            waived_weight: self.waived * weight,
            whole_weight: self.total() * weight,
            ..Sums::default()
        }
    }
}

/// A rule that a run evaluated, and the number of its verdicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleTally {
    /// The rule that was evaluated.
    pub rule: RuleId,
    /// The version that the run used.
    pub version: RuleVersionId,
    /// Severity of the rule in that version.
    pub severity: Severity,
    /// Number of verdicts of each kind.
    pub tally: VerdictCounts,
}

/// The figures of a run: sums and tallies over its assets.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// The run to which the figures belong.
    pub run: RunId,
    /// State of the run; the figures grow while the run is running.
    pub state: RunState,
    /// Sums over the evaluated assets.
    pub sums: Sums,
    /// Tallies of the evaluated rules, in the order of `rules`.
    pub rule_tallies: Vec<RuleTally>,
    /// The rules that the run uses, in the format of `Ruleset::snapshot`.
    pub rules: Value,
    /// Scope of the run; `None` for all assets in operation.
    pub scope: Option<Value>,
    /// Time at which the run was started.
    pub started_at: DateTime<Utc>,
    /// Time at which the run ended; `None` while the run is open.
    pub finished_at: Option<DateTime<Utc>>,
}

const SELECT: &str = "SELECT id, state, assets::bigint AS assets, scored::bigint AS scored, score_sum, passed_weight, failed_weight,
    waived_weight, whole_weight, rules, tallies, scope, started_at, finished_at,
    ARRAY(SELECT severity FROM jsonb_array_elements(rules) WITH ORDINALITY AS rule_tallies (by, place)
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
            rule_tallies: rule_tallies(&rules, &severities, &tallies)?,
            rules,
            scope: row.try_get("scope")?,
            started_at: row.try_get("started_at")?,
            finished_at: row.try_get("finished_at")?,
        })
    }
}

/// Parses the rules of a run and their tallies. All tallies are zero until the first shard has ended.
fn rule_tallies(
    rules: &Value,
    severities: &[Option<&str>],
    tallies: &[i32],
) -> Result<Vec<RuleTally>> {
    let corrupt = || Error::Corrupt { table: "compliance_run", column: "rules" };
    let rules = rules.as_array().ok_or_else(corrupt)?;
    let rows = tallies.chunks_exact(5).map(Some).chain(std::iter::repeat(None));
    let rule_tallies = rules.iter().zip(severities).zip(rows).map(|((rule, severity), row)| {
        let id = |key: &str| rule[key].as_str().and_then(|id| id.parse::<Uuid>().ok());
        Ok(RuleTally {
            rule: Id::from(id("rule").ok_or_else(corrupt)?),
            version: Id::from(id("version").ok_or_else(corrupt)?),
            severity: Severity::from_column(severity.ok_or_else(corrupt)?)?,
            tally: row.map_or_else(VerdictCounts::default, |row| {
                let [passed, failed, waived, not_assessed, errors] =
                    [0, 1, 2, 3, 4].map(|index| i64::from(row[index]));
                VerdictCounts { passed, failed, waived, not_assessed, errors }
            }),
        })
    });
    rule_tallies.collect()
}

impl Figures {
    /// Returns the figures of the run.
    ///
    /// # Errors
    /// `NotFound` if the run does not exist.
    pub async fn get(tx: &Tx, run: RunId) -> Result<Self> {
        let figures: Option<Self> = tx.opt(&format!("{SELECT} WHERE id = $1"), &[&run]).await?;
        figures.ok_or_else(|| Error::not_found("compliance run", run))
    }

    /// Returns the figures of these runs, by run.
    pub async fn of_runs(tx: &Tx, runs: &[RunId]) -> Result<HashMap<RunId, Self>> {
        let figures: Vec<Self> = tx.all(&format!("{SELECT} WHERE id = ANY($1)"), &[&runs]).await?;
        Ok(figures.into_iter().map(|figures| (figures.run, figures)).collect())
    }

    /// Returns the figures of the most recent successful runs of all assets, newest first.
    pub async fn last(tx: &Tx, runs: i64) -> Result<Vec<Self>> {
        let sql = format!(
            "{SELECT} WHERE state = 'SUCCEEDED' AND scope IS NULL ORDER BY id DESC LIMIT $1"
        );
        tx.all(&sql, &[&runs]).await
    }

    /// Returns the figures of the previous successful run of the same scope.
    pub async fn before(&self, tx: &Tx) -> Result<Option<Self>> {
        let sql = format!(
            "{SELECT} WHERE state = 'SUCCEEDED' AND scope IS NOT DISTINCT FROM $2 AND id < $1 ORDER BY id DESC LIMIT 1"
        );
        tx.opt(&sql, &[&self.run, &self.scope]).await
    }

    /// Returns the run's score; `None` if the run did not succeed, or if it assessed no rule on any asset.
    pub fn score(&self) -> Option<Score> {
        if self.state != RunState::Succeeded || self.sums.assessed_weight() == 0 {
            return None;
        }
        let failing = self.rule_tallies.iter().map(|rule| (rule.severity, rule.tally.failed));
        Some(Score::of(&self.sums, failing, self.finished_at.unwrap_or(self.started_at)))
    }

    /// Returns the number of verdicts of each kind over all rules.
    pub fn tally(&self) -> VerdictCounts {
        self.rule_tallies.iter().fold(VerdictCounts::default(), |sum, rule| sum.plus(rule.tally))
    }
}
