//! Circuit breaker in front of Redis. Three consecutive failures open the breaker, and only an answer of Redis closes
//! it. No request waits for a probe: while the breaker is open, the heartbeat of the limiter probes Redis once a
//! second.

use std::sync::atomic::{AtomicU32, Ordering};

/// Number of consecutive failures that opens the breaker.
const FAILURES_MAX: u32 = 3;

/// Circuit breaker that counts consecutive failures.
#[derive(Debug, Default)]
pub(super) struct Breaker(AtomicU32);

impl Breaker {
    pub(super) fn is_open(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= FAILURES_MAX
    }

    /// Records a failure of Redis. Returns true if this failure opened the breaker.
    pub(super) fn record_failure(&self) -> bool {
        // The count stays at the maximum, so exactly one of many parallel failures opens the breaker.
        let more = |failures: u32| (failures < FAILURES_MAX).then_some(failures + 1);
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        before == Ok(FAILURES_MAX - 1)
    }

    /// Records an answer of Redis. Returns true if this answer closed the breaker.
    pub(super) fn record_success(&self) -> bool {
        // Read before writing: all callers share this cache line, and the count is nearly always zero.
        self.0.load(Ordering::Relaxed) > 0 && self.0.swap(0, Ordering::Relaxed) >= FAILURES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_third_failure_in_a_row_opens_it() {
        let breaker = Breaker::default();
        assert_eq!([breaker.record_failure(), breaker.record_failure()], [false, false]);
        assert!(!breaker.record_success(), "the breaker was not open");
        assert_eq!(
            [breaker.record_failure(), breaker.record_failure(), breaker.is_open()],
            [false; 3]
        );
        assert_eq!([breaker.record_failure(), breaker.is_open()], [true, true]);
    }

    #[test]
    fn opening_and_closing_are_each_told_once() {
        let breaker = Breaker::default();
        let opened = (0..100).filter(|_| breaker.record_failure()).count();
        let closed = (0..100).filter(|_| breaker.record_success()).count();
        assert_eq!((opened, closed, breaker.is_open()), (1, 1, false));
    }
}
