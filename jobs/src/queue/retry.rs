//! Backoff before the next attempt of a failed job. Pure.

use std::time::Duration;

/// Maximum random wait after the first failure. Each further failure doubles it.
const FIRST_MAX: Duration = Duration::from_secs(1);
/// Upper limit of the random wait. A wait that the failure requested is added.
const BACKOFF_MAX: Duration = Duration::from_mins(5);
/// Upper limit of the wait that a failure may request.
const REQUESTED_MAX: Duration = Duration::from_mins(15);

/// Returns the wait after this number of attempts: exponential with full jitter (`random_fraction` is uniform in 0..1),
/// plus the wait that the failure requested.
pub(crate) fn backoff(
    attempts: i16,
    random_fraction: f64,
    requested: Option<Duration>,
) -> Duration {
    let doublings = u32::from(attempts.max(1).unsigned_abs() - 1).min(16);
    let max_backoff = FIRST_MAX.saturating_mul(1 << doublings).min(BACKOFF_MAX);
    let requested = requested.unwrap_or_default().min(REQUESTED_MAX);
    requested + max_backoff.mul_f64(random_fraction.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_cap_and_keep_what_was_asked() {
        let check = |attempts, random_fraction, requested: Option<u64>, expected_ms| {
            let wait = backoff(attempts, random_fraction, requested.map(Duration::from_secs));
            assert_eq!(
                wait,
                Duration::from_millis(expected_ms),
                "{attempts} {random_fraction} {requested:?}"
            );
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
