//! How often something may be done.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::error::{Error, Result};

const COUNT_MAX: u32 = 1_000_000;

/// `10/minute`: ten at once from a full bucket, which refills by one every sixth second.
///
/// Any span of `per` therefore sees less than twice `count` (once from the full bucket, once refilled).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// What is limited, e.g. `auth`: part of the key in Redis and a label of the metrics.
    pub name: &'static str,
    /// How many a full bucket grants at once.
    pub count: NonZeroU32,
    /// How long an empty bucket takes to fill.
    pub per: Duration,
}

impl Quota {
    /// Reads `10/minute`: a count, a slash, and `second`, `minute`, `hour` or `day`.
    ///
    /// # Errors
    /// [`Error::Quota`] with a sentence for whoever configured it; the text is not repeated in it.
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

    /// Microseconds until a bucket grants one more; rounded up, so that the rate is never exceeded.
    pub(super) fn interval_us(&self) -> u64 {
        let per_us = u64::try_from(self.per.as_micros()).unwrap_or(u64::MAX);
        per_us.div_ceil(u64::from(self.count.get())).max(1)
    }

    /// The part of this quota that one of `fleet` processes may grant alone; at least one.
    pub(super) fn share(&self, fleet: NonZeroU32) -> Self {
        let count = self.count.get().div_ceil(fleet.get());
        Self { count: NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN), ..*self }
    }

    /// The same quota in the words of the local limiter.
    pub(super) fn governor(&self) -> governor::Quota {
        let interval = (self.per / self.count.get()).max(Duration::from_nanos(1));
        governor::Quota::with_period(interval)
            .expect("a nanosecond at least")
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
        let no_slash = "a quota reads like 10/minute: there is no slash between count and unit";
        let count =
            "a quota reads like 10/minute: the count must be a whole number from 1 to 1000000";
        let unit = "a quota reads like 10/minute: the unit must be second, minute, hour or day";
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
    fn a_share_is_rounded_up_and_never_nothing() {
        let quota = Quota::parse("auth", "10/minute").unwrap();
        for (fleet, expected) in [(1, 10), (2, 5), (3, 4), (10, 1), (64, 1)] {
            assert_eq!(quota.share(NonZeroU32::new(fleet).unwrap()).count.get(), expected);
        }
    }
}
