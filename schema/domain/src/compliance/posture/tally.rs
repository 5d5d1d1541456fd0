//! Sums over the verdicts of some assets. All sums are whole numbers, so shards add up to the same result in any order.

use tokio_postgres::Row;

use super::{Posture, VerdictCode};
use crate::base::{db::FromRow, error::Result};

/// Sums over the postures of some assets. Sums, unlike means, can be added in any order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    /// Number of assets with a posture.
    pub assets: i64,
    /// Number of assets that have a score.
    pub scored: i64,
    /// Sum of the assets' scores, in millionths of a percent.
    pub score_sum: i64,
    /// Total weight of `PASS` verdicts.
    pub passed_weight: i64,
    /// Total weight of `FAIL` verdicts without a waiver.
    pub failed_weight: i64,
    /// Total weight of waived `FAIL` verdicts.
    pub waived_weight: i64,
    /// Total weight of all verdicts, including `NOT_ASSESSED` and `ERROR`.
    pub whole_weight: i64,
}

impl Sums {
    /// Returns the mean of the assets' scores, a percentage, 0 to 100; `None` if no asset has a score.
    pub fn mean(&self) -> Option<f64> {
        Some(ratio(self.score_sum, self.scored)? / 1_000_000.0)
    }

    /// Returns the percentage, 0 to 100, of the passed weight out of the passed and failed weight; `None` if both are
    /// zero.
    pub fn weighted(&self) -> Option<f64> {
        Some(ratio(self.passed_weight, self.passed_weight + self.failed_weight)? * 100.0)
    }

    /// Returns the coverage, 0 to 1: the fraction of the assessed weight (passed, failed and waived) out of the weight
    /// of all verdicts. Returns 0 if there are no verdicts.
    pub fn coverage(&self) -> f64 {
        ratio(self.assessed_weight(), self.whole_weight).unwrap_or(0.0)
    }

    pub(crate) const fn assessed_weight(&self) -> i64 {
        self.passed_weight + self.failed_weight + self.waived_weight
    }
}

impl FromRow for Sums {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            assets: row.try_get("assets")?,
            scored: row.try_get("scored")?,
            score_sum: row.try_get("score_sum")?,
            passed_weight: row.try_get("passed_weight")?,
            failed_weight: row.try_get("failed_weight")?,
            waived_weight: row.try_get("waived_weight")?,
            whole_weight: row.try_get("whole_weight")?,
        })
    }
}

/// Counts over the assets of one evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) sums: Sums,
    pub(crate) opened: i32,
    pub(crate) fixed: i32,
    /// Numbers of verdicts by slot, in the order passed, failed, waived, not assessed, errors.
    by_slot: Vec<[i32; 5]>,
}

impl Tally {
    /// Returns an empty tally with `width` slots.
    pub(crate) fn new(width: usize) -> Self {
        let sums = Sums::default();
        Self { sums, opened: 0, fixed: 0, by_slot: vec![[0; 5]; width] }
    }

    /// Adds the posture of one asset.
    pub(crate) fn add(&mut self, posture: &Posture) {
        self.sums.assets += 1;
        if let Some(score) = posture.score {
            self.sums.scored += 1;
            self.sums.score_sum += i64::from(score);
        }
        self.sums.passed_weight += i64::from(posture.passed_weight);
        self.sums.failed_weight += i64::from(posture.failed_weight);
        self.sums.waived_weight += i64::from(posture.waived_weight);
        self.sums.whole_weight += i64::from(posture.whole_weight);
        for (slot, code) in posture.codes.iter().enumerate() {
            if let (Some(count_index), Some(counts)) =
                (count_index(*code), self.by_slot.get_mut(slot))
            {
                counts[count_index] += 1;
            }
        }
    }

    /// Returns the totals over all rules: passed, failed, waived, not assessed, errors.
    pub(crate) fn totals(&self) -> [i32; 5] {
        self.by_slot.iter().fold([0; 5], |sum, counts| std::array::from_fn(|i| sum[i] + counts[i]))
    }

    /// Returns the counts of the rules at these slots in the format of the column `compliance_run.tallies`: five
    /// numbers per rule.
    pub(crate) fn column(&self, slots: impl Iterator<Item = usize>) -> Vec<i32> {
        slots.flat_map(|slot| self.by_slot.get(slot).copied().unwrap_or_default()).collect()
    }
}

const fn count_index(code: VerdictCode) -> Option<usize> {
    match code {
        VerdictCode::Pass => Some(0),
        VerdictCode::Fail => Some(1),
        VerdictCode::Waived => Some(2),
        VerdictCode::NotAssessed => Some(3),
        VerdictCode::Error => Some(4),
        VerdictCode::Absent => None,
    }
}

/// Returns `part / whole`; `None` if `whole` is not positive.
fn ratio(part: i64, whole: i64) -> Option<f64> {
    #[expect(
        clippy::cast_precision_loss,
        reason = "weights of millions of assets are far below 2^52"
    )]
    (whole > 0).then(|| part as f64 / whole as f64)
}
