//! Local rate limiters, built on the crate governor. A process uses one in front of Redis, and one in place of Redis
//! while Redis is unavailable.
//!
//! governor can neither check a bucket without taking a token nor return a token. So a bucket that refused a request
//! (locally or in Redis) is *blocked* until it has a token again, and blocked buckets are detected before any token is
//! taken. From the other buckets of a caller, at most one token per block is lost, and the bucket refills.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use governor::DefaultKeyedRateLimiter;
use governor::clock::Clock;

use super::block::Blocks;
use super::bucket::Bucket;
use super::quota::Quota;

/// Maximum number of buckets that a limiter stores. If requests use more different keys, the limiter evicts buckets.
const BUCKETS_MAX: usize = 100_000;
/// Number of calls between two checks of the number of buckets. Each check is slow, because governor visits every shard
/// of its map.
const CALLS_PER_SIZE_CHECK: u32 = 256;

/// Local rate limiter of one quota.
pub(super) struct LocalLimiter {
    quota: Quota,
    rate_limiter: RwLock<Arc<DefaultKeyedRateLimiter<Bucket>>>,
    /// Blocked buckets, each with the end of its block.
    blocked: Mutex<HashMap<Bucket, Instant>>,
    calls: AtomicU32,
}

impl LocalLimiter {
    pub(super) fn new(quota: Quota) -> Self {
        let rate_limiter = Arc::new(DefaultKeyedRateLimiter::keyed(quota.to_governor()));
        Self {
            quota,
            rate_limiter: RwLock::new(rate_limiter),
            blocked: Mutex::default(),
            calls: AtomicU32::new(0),
        }
    }

    /// Takes one token from each bucket.
    ///
    /// # Errors
    /// Returns the time to wait if a bucket has no token left.
    pub(super) fn take(&self, buckets: &[Bucket], now: Instant) -> Result<(), Duration> {
        if let Some(until) = self.blocked_until(buckets, now) {
            return Err(until.duration_since(now));
        }
        let rate_limiter = self.rate_limiter();
        for bucket in buckets {
            if let Err(refused) = rate_limiter.check_key(bucket) {
                let wait = refused.wait_time_from(rate_limiter.clock().now());
                self.block(*bucket, now + wait, now);
                return Err(wait);
            }
        }
        if self.calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(CALLS_PER_SIZE_CHECK) {
            self.limit_size(&rate_limiter);
        }
        Ok(())
    }

    /// Blocks a bucket: refuses its requests until this time, without a query to governor or Redis.
    pub(super) fn block(&self, bucket: Bucket, until: Instant, now: Instant) {
        let mut blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
        if blocked.len() >= BUCKETS_MAX {
            blocked.retain(|_, until| *until > now);
        }
        if blocked.len() >= BUCKETS_MAX {
            // Clearing the map is safe: the next request to such a bucket is only checked again.
            blocked.clear();
        }
        blocked.insert(bucket, until);
    }

    /// Evicts the buckets that are full again, and the blocks that have ended.
    pub(super) fn evict_full(&self, now: Instant) {
        self.blocked.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, until| *until > now);
        let rate_limiter = self.rate_limiter();
        rate_limiter.retain_recent();
        rate_limiter.shrink_to_fit();
    }

    fn blocked_until(&self, buckets: &[Bucket], now: Instant) -> Option<Instant> {
        let blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
        buckets
            .iter()
            .filter_map(|bucket| blocked.get(bucket))
            .copied()
            .max()
            .filter(|at| *at > now)
    }

    fn limit_size(&self, rate_limiter: &DefaultKeyedRateLimiter<Bucket>) {
        if rate_limiter.len() < BUCKETS_MAX {
            return;
        }
        rate_limiter.retain_recent();
        if rate_limiter.len() >= BUCKETS_MAX {
            // No bucket is full, so all are replaced. In front of Redis, only the local check is lost. In place of
            // Redis, all limits of the quota start again; an attacker needs 100,000 addresses to cause that.
            let fresh = Arc::new(DefaultKeyedRateLimiter::keyed(self.quota.to_governor()));
            *self.rate_limiter.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        }
    }

    fn rate_limiter(&self) -> Arc<DefaultKeyedRateLimiter<Bucket>> {
        self.rate_limiter.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Local state of a quota: its two local limiters, and the blocks of tokens that were taken from Redis.
pub(super) struct LocalLimiters {
    pub(super) quota: Quota,
    /// Blocks for requests that are counted in blocks.
    pub(super) blocks: Blocks,
    /// Limiter in front of Redis, with the full quota.
    pub(super) front: LocalLimiter,
    /// Limiter in place of Redis, with the share of this process, and the number of processes for which it was built.
    share: RwLock<(NonZeroU32, Arc<LocalLimiter>)>,
}

impl LocalLimiters {
    pub(super) fn new(quota: Quota) -> Self {
        let share = (NonZeroU32::MIN, Arc::new(LocalLimiter::new(quota)));
        let (blocks, front) = (Blocks::default(), LocalLimiter::new(quota));
        Self { quota, blocks, front, share: RwLock::new(share) }
    }

    /// Returns the limiter to use in place of Redis, with the share of one process among `process_count`. Builds a new
    /// limiter if the number has changed.
    pub(super) fn share(&self, process_count: NonZeroU32) -> Arc<LocalLimiter> {
        let (built_for, limiter) =
            self.share.read().unwrap_or_else(PoisonError::into_inner).clone();
        if built_for == process_count {
            return limiter;
        }
        let mut share = self.share.write().unwrap_or_else(PoisonError::into_inner);
        if share.0 != process_count {
            *share = (process_count, Arc::new(LocalLimiter::new(self.quota.share(process_count))));
        }
        share.1.clone()
    }

    pub(super) fn evict_full(&self, now: Instant) {
        self.blocks.evict(now);
        self.front.evict_full(now);
        self.share.read().unwrap_or_else(PoisonError::into_inner).1.evict_full(now);
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
        limiter.block(address, now + minute, now);
        for _ in 0..10 {
            assert_eq!(limiter.take(&[account, address], now), Err(minute));
        }
        assert_eq!(limiter.take(&[account], now), Ok(()));
        assert_eq!(limiter.take(&[account, address], now + minute), Ok(()), "no longer blocked");
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
            limiter.block(bucket, now + Duration::from_mins(1), now);
        }
        assert!(limiter.rate_limiter().len() <= BUCKETS_MAX + CALLS_PER_SIZE_CHECK as usize);
        assert!(limiter.blocked.lock().unwrap().len() <= BUCKETS_MAX);
        limiter.evict_full(now + Duration::from_mins(1));
        assert_eq!(limiter.blocked.lock().unwrap().len(), 0);
    }

    #[test]
    fn the_share_follows_the_fleet() {
        let limiters = LocalLimiters::new(Quota::parse("auth", "10/day").unwrap());
        let key = [Bucket::new("a")];
        for (process_count, expected) in [(1, 10), (3, 4), (20, 1)] {
            let process_count = NonZeroU32::new(process_count).unwrap();
            let taken = |_: &i32| limiters.share(process_count).take(&key, Instant::now()).is_ok();
            assert_eq!((0..50).filter(taken).count(), expected);
        }
    }
}
