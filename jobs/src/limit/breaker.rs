//! When Redis is not asked. Opens after three failures in a row; only an answer closes it again. No
//! caller ever pays for a probe: while it is open the fleet's heartbeat tries once a second.

use std::sync::atomic::{AtomicU32, Ordering};

const FAILURES_MAX: u32 = 3;

/// Counts failures in a row.
#[derive(Debug, Default)]
pub(super) struct Breaker(AtomicU32);

impl Breaker {
    pub(super) fn is_open(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= FAILURES_MAX
    }

    /// Redis failed us; true if this opened the breaker.
    pub(super) fn failed(&self) -> bool {
        // Stays at the maximum: of many parallel failures exactly one opens it.
        let more = |failures: u32| (failures < FAILURES_MAX).then_some(failures + 1);
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        before == Ok(FAILURES_MAX - 1)
    }

    /// Redis answered; true if this closed the breaker.
    pub(super) fn answered(&self) -> bool {
        // Read first: all callers share this cache line, and nearly always it holds zero.
        self.0.load(Ordering::Relaxed) > 0 && self.0.swap(0, Ordering::Relaxed) >= FAILURES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_third_failure_in_a_row_opens_it() {
        let breaker = Breaker::default();
        assert_eq!([breaker.failed(), breaker.failed()], [false, false]);
        assert!(!breaker.answered(), "it was not open");
        assert_eq!([breaker.failed(), breaker.failed(), breaker.is_open()], [false; 3]);
        assert_eq!([breaker.failed(), breaker.is_open()], [true, true]);
    }

    #[test]
    fn opening_and_closing_are_each_told_once() {
        let breaker = Breaker::default();
        let opened = (0..100).filter(|_| breaker.failed()).count();
        let closed = (0..100).filter(|_| breaker.answered()).count();
        assert_eq!((opened, closed, breaker.is_open()), (1, 1, false));
    }
}
