//! Scores: the percentage of the weight that passes, and the coverage, i.e. the fraction of the weight that could be
//! assessed. `score/figures` holds the figures of a run; `score/group` computes scores by owner, tag, type and
//! environment.
//!
//! There are two scores, because they answer different questions. The mean over assets counts a laptop as much as a
//! database. The weighted score counts every rule on every asset by its severity. Neither is shown without its
//! coverage. If nothing was assessed, the score is null instead of 100. Waived failures count in neither score, but
//! they count as assessed.

use async_graphql::SimpleObject;
use chrono::{DateTime, Utc};
use tokio_postgres::Row;

use crate::{
    access::{directive::requires, permission::Permission},
    base::{db::Tx, error::Result},
    compliance::{posture::Sums, rule::Severity},
};

mod figures;
mod group;

pub use figures::{Figures, RuleTally, VerdictCounts};
pub use group::{Dimension, PostureGroup};

/// Number of failures of one severity. Requires `COMPLIANCE_READ`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, SimpleObject)]
#[graphql(directive = requires::apply(Permission::ComplianceRead))]
pub struct SeverityCount {
    /// Severity of the failed rules.
    pub severity: Severity,
    /// Number of failures without a waiver. Each pair of rule and asset counts once.
    pub failing: i64,
}

/// Scores and coverage of a set of assets at a point in time. A rule is evaluated on every asset to which it applies.
/// The rule is assessed on an asset if the evaluation gives the verdict `PASS` or `FAIL`, waived or not. Requires
/// `COMPLIANCE_READ`.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
#[graphql(directive = requires::apply(Permission::ComplianceRead))]
pub struct Score {
    /// Mean of the assets' scores, a percentage, 0 to 100: every asset counts the same. An asset's score is the weight
    /// of the rules that the asset passed, as a percentage of the weight of the rules that it passed or failed. Waived
    /// failures do not count. Null if no asset has a score.
    pub mean: Option<f64>,
    /// Percentage, 0 to 100, over all assets: weight of the passed rules out of the weight of the passed and failed
    /// rules. A rule's weight follows from its severity: `LOW` 1, `MEDIUM` 2, `HIGH` 5, `CRITICAL` 10. Waived failures
    /// do not count. Null if no rule passed or failed.
    pub weighted: Option<f64>,
    /// Weight of the assessed rules (passed, failed or waived) out of the weight of all rules that apply, over all
    /// assets. Unlike `mean` and `weighted`, a fraction from 0 to 1.
    pub coverage: f64,
    /// Number of evaluated assets. Includes assets on which no rule was assessed, and which therefore have no score.
    pub assets: i64,
    /// Number of failures without a waiver, by severity: all four severities, lowest first.
    pub by_severity: Vec<SeverityCount>,
    /// Point in time of the score: the end of the run if the score belongs to a compliance run, or the time of the
    /// request if the score is the current one.
    pub at: DateTime<Utc>,
}

/// The columns of [`Sums`] over postures.
macro_rules! posture_sums {
    () => {
        "count(*) AS assets, count(posture.score) AS scored, coalesce(sum(posture.score), 0)::bigint AS score_sum,
         coalesce(sum(passed_weight), 0)::bigint AS passed_weight, coalesce(sum(failed_weight), 0)::bigint AS failed_weight,
         coalesce(sum(waived_weight), 0)::bigint AS waived_weight, coalesce(sum(whole_weight), 0)::bigint AS whole_weight"
    };
}
use posture_sums;

impl Score {
    /// Returns the score for these sums. `failing` are numbers of failures by severity.
    pub fn of(
        sums: &Sums,
        failing: impl IntoIterator<Item = (Severity, i64)>,
        at: DateTime<Utc>,
    ) -> Self {
        let count = |severity: &Severity| SeverityCount { severity: *severity, failing: 0 };
        let mut by_severity: Vec<_> = Severity::ALL.iter().map(count).collect();
        for (severity, failing) in failing {
            for count in by_severity.iter_mut().filter(|count| count.severity == severity) {
                count.failing += failing;
            }
        }
        Self {
            mean: sums.mean(),
            weighted: sums.weighted(),
            coverage: sums.coverage(),
            assets: sums.assets,
            by_severity,
            at,
        }
    }

    /// Returns the organization's current score from its postures; `None` if no rule is assessed on any asset yet.
    pub async fn now(tx: &Tx, now: DateTime<Utc>) -> Result<Option<Self>> {
        let sums: Sums = tx.one(concat!("SELECT ", posture_sums!(), " FROM posture"), &[]).await?;
        if sums.assessed_weight() == 0 {
            return Ok(None);
        }
        let failing: Vec<Row> = tx
            .all(
                "SELECT severity, count(*) AS failing FROM finding WHERE ended_at IS NULL AND state = 'OPEN' GROUP BY severity",
                &[],
            )
            .await?;
        let failing = failing.iter().map(|row| {
            Ok((Severity::from_column(row.try_get("severity")?)?, row.try_get("failing")?))
        });
        Ok(Some(Self::of(&sums, failing.collect::<Result<Vec<_>>>()?, now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_data_is_no_score() {
        let score = Score::of(&Sums::default(), [], DateTime::UNIX_EPOCH);
        assert_eq!((score.mean, score.weighted, score.assets), (None, None, 0));
        assert!(score.coverage.abs() < f64::EPSILON);
        let severities: Vec<_> = score.by_severity.iter().map(|count| count.severity).collect();
        assert_eq!(severities, Severity::ALL);
    }

    #[test]
    fn what_is_waived_counts_as_judged_only() {
        let sums = Sums {
            assets: 3,
            scored: 2,
            score_sum: 150_000_000,
            passed_weight: 30,
            failed_weight: 10,
            waived_weight: 5,
            whole_weight: 60,
        };
        let failing = [(Severity::High, 1), (Severity::High, 1)];
        let score = Score::of(&sums, failing, DateTime::UNIX_EPOCH);
        assert_eq!((score.mean, score.weighted), (Some(75.0), Some(75.0)));
        assert!((score.coverage - 0.75).abs() < f64::EPSILON);
        let failing: Vec<_> = score.by_severity.iter().map(|count| count.failing).collect();
        assert_eq!(failing, [0, 0, 2, 0]);
    }

    #[test]
    fn all_waived_has_coverage_and_no_score() {
        let sums = Sums { assets: 1, waived_weight: 5, whole_weight: 5, ..Sums::default() };
        assert_eq!((sums.mean(), sums.weighted()), (None, None));
        assert!((sums.coverage() - 1.0).abs() < f64::EPSILON);
    }
}
