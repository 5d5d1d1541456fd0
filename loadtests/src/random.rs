//! Reproducible pseudo-random numbers from a seed, by the algorithm splitmix64.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;

/// Returns the given seed, or the current Unix time in seconds. Reports contain the seed, so that a scenario can be
/// repeated with the same numbers.
pub(crate) fn seed(given: Option<u64>) -> Result<u64> {
    Ok(match given {
        Some(seed) => seed,
        None => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
    })
}

/// A seeded generator of random numbers.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Creates a generator; equal seeds yield equal numbers.
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `end`, which must not be 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        // The remainder is below `end`, which is a usize.
        usize::try_from(self.next() % end as u64).unwrap_or_default()
    }

    /// Creates the generator for one position, such as a row number. The numbers at different positions are
    /// independent.
    pub(crate) const fn at(seed: u64, position: usize) -> Self {
        // The factor differs from the increment in `next`, so that adjacent positions have different numbers.
        Self(seed.wrapping_add((position as u64).wrapping_mul(0xd134_2543_de82_ef95)))
    }

    /// Returns true with a probability of `percent` percent.
    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// Returns one of the choices, of which there must be at least one.
    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Returns a duration of at least `minimum` and below `maximum`, in steps of whole milliseconds; `minimum` if both
    /// are equal.
    pub(crate) fn between(&mut self, minimum: Duration, maximum: Duration) -> Duration {
        let range = maximum.saturating_sub(minimum).as_millis().max(1);
        let range = usize::try_from(range).unwrap_or(usize::MAX);
        minimum + Duration::from_millis(self.below(range) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_itself_and_bounds_hold() {
        let numbers = |seed| {
            let mut random = Random::new(seed);
            (0..100).map(|_| random.below(7)).collect::<Vec<_>>()
        };
        assert_eq!(numbers(1), numbers(1));
        assert_ne!(numbers(1), numbers(2));
        assert!(numbers(3).iter().all(|number| *number < 7));
    }

    #[test]
    fn places_beside_each_other_have_numbers_of_their_own() {
        let first = |position| Random::at(1, position).next();
        let numbers: std::collections::HashSet<_> = (0..1000).map(first).collect();
        assert_eq!(numbers.len(), 1000);
        let heads = (0..1000).filter(|position| Random::at(1, *position).chance(50)).count();
        assert!((400..600).contains(&heads), "{heads}");
    }
}
