//! What the verdicts of some assets add up to: whole numbers, so that shards add up to the same in any order.

use crate::compliance::{
    posture::{Letter, Posture},
    score::Sums,
};

/// What a look at some assets adds up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(super) sums: Sums,
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
        for (slot, letter) in posture.letters.iter().enumerate() {
            if let (Some(place), Some(counts)) = (place(*letter), self.by_slot.get_mut(slot)) {
                counts[place] += 1;
            }
        }
    }

    /// All verdicts: passed, failed, waived, not assessed, errors.
    pub(super) fn totals(&self) -> [i32; 5] {
        self.by_slot.iter().fold([0; 5], |sum, counts| std::array::from_fn(|i| sum[i] + counts[i]))
    }

    /// As a column keeps it, of the rules at these slots.
    pub(super) fn column(&self, slots: impl Iterator<Item = usize>) -> Vec<i32> {
        slots.flat_map(|slot| self.by_slot.get(slot).copied().unwrap_or_default()).collect()
    }
}

const fn place(letter: Letter) -> Option<usize> {
    match letter {
        Letter::Pass => Some(0),
        Letter::Fail => Some(1),
        Letter::Waived => Some(2),
        Letter::NotAssessed => Some(3),
        Letter::Error => Some(4),
        Letter::Absent => None,
    }
}
