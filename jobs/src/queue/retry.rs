//! When a failed job is tried again. Pure.

use std::time::Duration;

/// The longest wait after the first failure; doubled by each further one.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait of all, unless whoever refused asked for more.
const LONGEST: Duration = Duration::from_mins(5);
/// The longest wait that somebody may ask for.
const LONGEST_ASKED: Duration = Duration::from_mins(15);

/// How long to wait after this many attempts: exponential, with full jitter (`unit` is uniform in 0..1), and at least
/// what whoever refused asked for.
pub(crate) fn backoff(attempts: i16, unit: f64, asked: Option<Duration>) -> Duration {
    let doublings = u32::from(attempts.max(1).unsigned_abs() - 1).min(16);
    let most = FIRST.saturating_mul(1 << doublings).min(LONGEST);
    let asked = asked.unwrap_or_default().min(LONGEST_ASKED);
    asked + most.mul_f64(unit.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_cap_and_keep_what_was_asked() {
        let check = |attempts, unit, asked: Option<u64>, expected_ms| {
            let wait = backoff(attempts, unit, asked.map(Duration::from_secs));
            assert_eq!(wait, Duration::from_millis(expected_ms), "{attempts} {unit} {asked:?}");
        };
        check(1, 1.0, None, 1_000);
        check(1, 0.0, None, 0);
        check(2, 0.5, None, 1_000);
        check(4, 1.0, None, 8_000);
        check(20, 1.0, None, 300_000);
        check(i16::MAX, 1.0, None, 300_000);
        check(0, 1.0, None, 1_000);
        check(1, 0.5, Some(60), 60_500);
        check(1, 0.0, Some(86_400), 900_000);
    }
}
