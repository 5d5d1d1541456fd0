//! Quotas such as `10/minute`, and their parsing.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::error::{Error, Result};

/// Maximum number of tokens in a bucket.
const COUNT_MAX: u32 = 1_000_000;
/// Number of blocks in a full bucket: a process that counts in blocks deviates from the quota by one of them at most.
const BLOCKS: u32 = 60;

/// Rate limit of an action, enforced by one token bucket per limited key, e.g. an address or a user. With `10/minute`,
/// a bucket holds up to ten tokens and regains one token every six seconds. Each request takes one token.
///
/// In any window of length `per`, fewer than 2 × `count` requests are admitted: the burst from a full bucket, plus the
/// tokens refilled within the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Name of the limited action, e.g. `auth`. Part of the key in Redis, and a label of the metrics.
    pub name: &'static str,
    /// Number of tokens in a full bucket.
    pub count: NonZeroU32,
    /// Time in which an empty bucket becomes full.
    pub per: Duration,
}

impl Quota {
    /// Parses `10/minute`: a count from 1 to 1,000,000, a slash, and `second`, `minute`, `hour` or `day`.
    ///
    /// # Errors
    /// [`Error::Quota`] if the text is not a quota. The message says what is wrong and does not contain the input.
    pub fn parse(name: &'static str, text: &str) -> Result<Self> {
        let (count, unit) = text
            .trim()
            .split_once('/')
            .ok_or(Error::Quota("there is no slash between count and unit"))?;
        let count = count
            .parse()
            .ok()
            .filter(|count: &NonZeroU32| count.get() <= COUNT_MAX)
            .ok_or(Error::Quota("the count must be a whole number from 1 to 1000000"))?;
        let secs = match unit {
            "second" => 1,
            "minute" => 60,
            "hour" => 3_600,
            "day" => 86_400,
            _ => return Err(Error::Quota("the unit must be second, minute, hour or day")),
        };
        Ok(Self { name, count, per: Duration::from_secs(secs) })
    }

    /// Returns the quota with `factor` times the tokens, but no more than [`COUNT_MAX`] because of the factor.
    pub(super) fn times(&self, factor: u32) -> Self {
        let count = self.count.get().saturating_mul(factor).min(COUNT_MAX);
        Self { count: NonZeroU32::new(count).unwrap_or(self.count).max(self.count), ..*self }
    }

    /// Returns the number of tokens that a process takes from Redis at once, for requests that are counted in blocks.
    pub(super) fn block(&self) -> u32 {
        self.count.get().div_ceil(BLOCKS)
    }

    /// Returns the refill interval in microseconds: the time after which a bucket regains one token. Rounded up, so
    /// that the rate is never exceeded.
    pub(super) fn interval_us(&self) -> u64 {
        let per_us = u64::try_from(self.per.as_micros()).unwrap_or(u64::MAX);
        per_us.div_ceil(u64::from(self.count.get())).max(1)
    }

    /// Returns the limit of this process while Redis is unavailable: `count` divided by the number of processes,
    /// rounded up. It is at least one. Because of the rounding, the limits of all processes together may exceed the
    /// quota.
    pub(super) fn share(&self, process_count: NonZeroU32) -> Self {
        let count = self.count.get().div_ceil(process_count.get());
        Self { count: NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN), ..*self }
    }

    /// Converts the quota to the `governor::Quota` of the local limiters.
    pub(super) fn to_governor(self) -> governor::Quota {
        let interval = (self.per / self.count.get()).max(Duration::from_nanos(1));
        governor::Quota::with_period(interval)
            .expect("the interval is at least a nanosecond")
            .allow_burst(self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_a_count_and_a_unit() {
        for (text, count, secs) in [
            ("10/minute", 10, 60),
            ("5/second", 5, 1),
            ("1/hour", 1, 3_600),
            (" 1000000/day\n", 1_000_000, 86_400),
        ] {
            let quota = Quota::parse("auth", text).unwrap();
            assert_eq!((quota.count.get(), quota.per.as_secs()), (count, secs), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_a_sentence() {
        let no_slash = "a quota must look like 10/minute: there is no slash between count and unit";
        let count =
            "a quota must look like 10/minute: the count must be a whole number from 1 to 1000000";
        let unit = "a quota must look like 10/minute: the unit must be second, minute, hour or day";
        for (text, expected) in [
            ("", no_slash),
            ("10", no_slash),
            ("10 per minute", no_slash),
            ("/minute", count),
            ("0/minute", count),
            ("x/minute", count),
            ("-1/minute", count),
            ("1.5/minute", count),
            ("1000001/minute", count),
            ("99999999999/minute", count),
            ("10/", unit),
            ("10/fortnight", unit),
            ("10/minutes", unit),
            ("10/minute/second", unit),
        ] {
            assert_eq!(Quota::parse("auth", text).unwrap_err().to_string(), expected, "{text:?}");
        }
    }

    #[test]
    fn an_interval_is_rounded_up() {
        for (text, expected_us) in [
            ("10/minute", 6_000_000),
            ("7/second", 142_858),
            ("1/day", 86_400_000_000),
            ("1000000/second", 1),
        ] {
            assert_eq!(Quota::parse("auth", text).unwrap().interval_us(), expected_us, "{text}");
        }
    }

    #[test]
    fn a_larger_quota_keeps_to_the_maximum() {
        for (text, expected) in [("10/minute", 160), ("100000/minute", 1_000_000)] {
            assert_eq!(Quota::parse("auth", text).unwrap().times(16).count.get(), expected);
        }
        let count = NonZeroU32::MAX;
        let configured = Quota { name: "auth", count, per: Duration::from_secs(1) };
        assert_eq!(configured.times(4).count, count);
    }

    #[test]
    fn a_block_is_a_sixtieth_and_never_nothing() {
        for (text, expected) in [("3000/minute", 50), ("100/minute", 2), ("10/minute", 1)] {
            assert_eq!(Quota::parse("auth", text).unwrap().block(), expected, "{text}");
        }
    }

    #[test]
    fn a_share_is_rounded_up_and_never_nothing() {
        let quota = Quota::parse("auth", "10/minute").unwrap();
        for (process_count, expected) in [(1, 10), (2, 5), (3, 4), (10, 1), (64, 1)] {
            assert_eq!(quota.share(NonZeroU32::new(process_count).unwrap()).count.get(), expected);
        }
    }
}
