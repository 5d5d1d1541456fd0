//! Scores: how much of what was judged holds, and how much could be judged at all. (`score/figures`: what a run's assets add
//! up to; `score/group`: scores by owner, tag, type and environment.)
//!
//! Two of them, because they answer different questions: the mean of assets counts a laptop as much as a database, the
//! weighted one counts every rule of every asset by its severity. Neither is without coverage beside it, and where nothing
//! was judged there is none, instead of a hundred. What a waiver allows counts in neither, but as judged.

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

pub use figures::{Figures, Judged, Tally};
pub use group::{Dimension, PostureGroup};

/// How many verdicts of a severity are failures. Takes `COMPLIANCE_READ`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, SimpleObject)]
#[graphql(directive = requires::apply(Permission::ComplianceRead))]
pub struct SeverityCount {
    /// The severity.
    pub severity: Severity,
    /// How many rules of it are broken, counted by asset, without what a waiver allows.
    pub failing: i64,
}

/// How much of what was judged holds, and how much was judged. Takes `COMPLIANCE_READ`.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
#[graphql(directive = requires::apply(Permission::ComplianceRead))]
pub struct Score {
    /// Mean of the assets' scores, 0 to 100; null where no asset has one.
    pub mean: Option<f64>,
    /// The weight of what holds in that of what was judged, over all assets, 0 to 100; null where nothing was judged.
    pub weighted: Option<f64>,
    /// The weight of what was judged in that of all that applies, 0 to 1.
    pub coverage: f64,
    /// How many assets it is about.
    pub assets: i64,
    /// Failures by severity: all four, the least first.
    pub by_severity: Vec<SeverityCount>,
    /// As of when.
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
    /// The score of what adds up to `sums`, with so many failures of these severities.
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

    /// The organization's score as of its postures now; none where nothing is judged yet.
    pub async fn now(tx: &Tx, now: DateTime<Utc>) -> Result<Option<Self>> {
        let sums: Sums = tx.one(concat!("SELECT ", posture_sums!(), " FROM posture"), &[]).await?;
        if sums.judged_weight() == 0 {
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
