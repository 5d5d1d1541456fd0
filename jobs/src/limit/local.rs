//! The limits that a process enforces by itself, over governor: in front of Redis, and instead of it.
//!
//! governor can neither look without taking nor give back. So a bucket that refused (by itself or by
//! Redis) is *shut* until it grants again, and a shut bucket is noticed before anything is taken:
//! what is taken in vain from the other buckets of a caller is one in each such span, which refills.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use governor::DefaultKeyedRateLimiter;
use governor::clock::Clock;

use super::bucket::Bucket;
use super::quota::Quota;

/// Buckets that one limiter remembers; under a flood of different keys it forgets rather than grow.
const BUCKETS_MAX: usize = 100_000;
/// Their number is checked once in so many calls, for counting visits every shard.
const CALLS_PER_COUNT: u32 = 256;

/// One quota, enforced locally.
pub(super) struct LocalLimiter {
    quota: Quota,
    cells: RwLock<Arc<DefaultKeyedRateLimiter<Bucket>>>,
    shut: Mutex<HashMap<Bucket, Instant>>,
    calls: AtomicU32,
}

impl LocalLimiter {
    pub(super) fn new(quota: Quota) -> Self {
        let cells = Arc::new(DefaultKeyedRateLimiter::keyed(quota.governor()));
        Self { quota, cells: RwLock::new(cells), shut: Mutex::default(), calls: AtomicU32::new(0) }
    }

    /// Takes one from each bucket.
    ///
    /// # Errors
    /// How long to wait, if one of them has none left.
    pub(super) fn take(&self, buckets: &[Bucket], now: Instant) -> Result<(), Duration> {
        if let Some(until) = self.shut_until(buckets, now) {
            return Err(until.duration_since(now));
        }
        let cells = self.cells();
        for bucket in buckets {
            if let Err(refused) = cells.check_key(bucket) {
                let wait = refused.wait_time_from(cells.clock().now());
                self.shut(*bucket, now + wait, now);
                return Err(wait);
            }
        }
        if self.calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(CALLS_PER_COUNT) {
            self.bound(&cells);
        }
        Ok(())
    }

    /// Refuses a bucket until then, without asking anybody.
    pub(super) fn shut(&self, bucket: Bucket, until: Instant, now: Instant) {
        let mut shut = self.shut.lock().unwrap_or_else(PoisonError::into_inner);
        if shut.len() >= BUCKETS_MAX {
            shut.retain(|_, until| *until > now);
        }
        if shut.len() >= BUCKETS_MAX {
            // Forgetting is safe: they are only asked again.
            shut.clear();
        }
        shut.insert(bucket, until);
    }

    /// Forgets the buckets that are full again.
    pub(super) fn tidy(&self, now: Instant) {
        self.shut.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, until| *until > now);
        let cells = self.cells();
        cells.retain_recent();
        cells.shrink_to_fit();
    }

    fn shut_until(&self, buckets: &[Bucket], now: Instant) -> Option<Instant> {
        let shut = self.shut.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.iter().filter_map(|bucket| shut.get(bucket)).copied().max().filter(|at| *at > now)
    }

    fn bound(&self, cells: &DefaultKeyedRateLimiter<Bucket>) {
        if cells.len() < BUCKETS_MAX {
            return;
        }
        cells.retain_recent();
        if cells.len() >= BUCKETS_MAX {
            // All in use. In front of Redis this loses nothing but the front; instead of Redis it
            // costs the attacker 100,000 addresses for each time he may begin anew.
            let fresh = Arc::new(DefaultKeyedRateLimiter::keyed(self.quota.governor()));
            *self.cells.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        }
    }

    fn cells(&self) -> Arc<DefaultKeyedRateLimiter<Bucket>> {
        self.cells.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Both limiters of one quota.
pub(super) struct LocalLimiters {
    pub(super) quota: Quota,
    /// Before Redis is asked: the whole quota.
    pub(super) front: LocalLimiter,
    /// When Redis cannot be asked: this process' share of it, and of how many.
    share: RwLock<(NonZeroU32, Arc<LocalLimiter>)>,
}

impl LocalLimiters {
    pub(super) fn new(quota: Quota) -> Self {
        let share = (NonZeroU32::MIN, Arc::new(LocalLimiter::new(quota)));
        Self { quota, front: LocalLimiter::new(quota), share: RwLock::new(share) }
    }

    /// The limiter that stands instead of Redis, for one of `fleet` processes.
    pub(super) fn share(&self, fleet: NonZeroU32) -> Arc<LocalLimiter> {
        let (built_for, limiter) =
            self.share.read().unwrap_or_else(PoisonError::into_inner).clone();
        if built_for == fleet {
            return limiter;
        }
        let mut share = self.share.write().unwrap_or_else(PoisonError::into_inner);
        if share.0 != fleet {
            *share = (fleet, Arc::new(LocalLimiter::new(self.quota.share(fleet))));
        }
        share.1.clone()
    }

    pub(super) fn tidy(&self, now: Instant) {
        self.front.tidy(now);
        self.share.read().unwrap_or_else(PoisonError::into_inner).1.tidy(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(quota: &str) -> LocalLimiter {
        LocalLimiter::new(Quota::parse("auth", quota).unwrap())
    }

    #[test]
    fn a_shut_bucket_takes_nothing_from_its_neighbour() {
        let limiter = limiter("2/day");
        let (account, address) = (Bucket::new("account"), Bucket::new("address"));
        let now = Instant::now();
        let minute = Duration::from_mins(1);
        limiter.shut(address, now + minute, now);
        for _ in 0..10 {
            assert_eq!(limiter.take(&[account, address], now), Err(minute));
        }
        assert_eq!(limiter.take(&[account], now), Ok(()));
        assert_eq!(limiter.take(&[account, address], now + minute), Ok(()), "no longer shut");
    }

    #[test]
    fn an_empty_bucket_drains_its_neighbour_once_at_most() {
        let limiter = limiter("3/day");
        let (account, address) = (Bucket::new("account"), Bucket::new("address"));
        let now = Instant::now();
        for _ in 0..3 {
            assert_eq!(limiter.take(&[address], now), Ok(()));
        }
        for _ in 0..10 {
            let wait = limiter.take(&[account, address], now).unwrap_err();
            let refill = Duration::from_hours(8);
            assert!(wait <= refill && wait + Duration::from_mins(1) > refill, "{wait:?}");
        }
        assert_eq!([(); 2].map(|()| limiter.take(&[account], now)), [Ok(()); 2]);
    }

    #[test]
    fn a_flood_of_keys_does_not_fill_the_memory() {
        let limiter = limiter("1/day");
        let now = Instant::now();
        for n in 0..BUCKETS_MAX + 10_000 {
            let bucket = Bucket::new(&n.to_string());
            assert_eq!(limiter.take(&[bucket], now), Ok(()));
            limiter.shut(bucket, now + Duration::from_mins(1), now);
        }
        assert!(limiter.cells().len() <= BUCKETS_MAX + CALLS_PER_COUNT as usize);
        assert!(limiter.shut.lock().unwrap().len() <= BUCKETS_MAX);
        limiter.tidy(now + Duration::from_mins(1));
        assert_eq!(limiter.shut.lock().unwrap().len(), 0);
    }

    #[test]
    fn the_share_follows_the_fleet() {
        let limiters = LocalLimiters::new(Quota::parse("auth", "10/day").unwrap());
        let key = [Bucket::new("a")];
        for (fleet, expected) in [(1, 10), (3, 4), (20, 1)] {
            let fleet = NonZeroU32::new(fleet).unwrap();
            let taken = |_: &i32| limiters.share(fleet).take(&key, Instant::now()).is_ok();
            assert_eq!((0..50).filter(taken).count(), expected);
        }
    }
}
