//! What the verdicts of some assets add up to: whole numbers, so that shards add up to the same in any order.

use tokio_postgres::Row;

use super::{Posture, VerdictCode};
use crate::base::{db::FromRow, error::Result};

/// What assets' postures add up to; sums and not means, so that they add up in any order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    /// Assets.
    pub assets: i64,
    /// Those of them that have a score.
    pub scored: i64,
    /// The sum of their scores, in millionths of a percent.
    pub score_sum: i64,
    /// Weight of what holds.
    pub passed_weight: i64,
    /// Weight of what does not.
    pub failed_weight: i64,
    /// Weight of what does not, and a waiver allows.
    pub waived_weight: i64,
    /// Weight of all that applies.
    pub whole_weight: i64,
}

impl Sums {
    /// Mean of the assets' scores, 0 to 100.
    pub fn mean(&self) -> Option<f64> {
        Some(ratio(self.score_sum, self.scored)? / 1_000_000.0)
    }

    /// The weight of what holds in that of what was judged, 0 to 100.
    pub fn weighted(&self) -> Option<f64> {
        Some(ratio(self.passed_weight, self.passed_weight + self.failed_weight)? * 100.0)
    }

    /// The weight of what was judged in that of all that applies, 0 to 1; 0 where nothing applies.
    pub fn coverage(&self) -> f64 {
        ratio(self.judged_weight(), self.whole_weight).unwrap_or(0.0)
    }

    pub(crate) const fn judged_weight(&self) -> i64 {
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

/// What a look at some assets adds up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) sums: Sums,
    pub(crate) opened: i32,
    pub(crate) fixed: i32,
    /// By slot.
    by_slot: Vec<[i32; 5]>,
}

impl Tally {
    /// Of no asset yet, by rules of so many slots.
    pub(crate) fn new(width: usize) -> Self {
        let sums = Sums::default();
        Self { sums, opened: 0, fixed: 0, by_slot: vec![[0; 5]; width] }
    }

    /// Adds one asset's.
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

    /// All verdicts: passed, failed, waived, not assessed, errors.
    pub(crate) fn totals(&self) -> [i32; 5] {
        self.by_slot.iter().fold([0; 5], |sum, counts| std::array::from_fn(|i| sum[i] + counts[i]))
    }

    /// As a column keeps it, of the rules at these slots.
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

/// How much of a whole; none where there is no whole.
fn ratio(part: i64, whole: i64) -> Option<f64> {
    #[expect(
        clippy::cast_precision_loss,
        reason = "weights of millions of assets are far below 2^52"
    )]
    (whole > 0).then(|| part as f64 / whole as f64)
}
