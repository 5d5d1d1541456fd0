//! State that a limiter shares with its heartbeat: the local limiters, and the circuit breaker through which it queries
//! Redis.

use std::{
    error::Error as _,
    num::NonZeroU32,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use fred::types::{FromValue, Value, scripts::Script};
use metrics::counter;
use tracing::{info, warn};

use super::{
    block::BlockState, breaker::Breaker, bucket::Bucket, local::LocalLimiters, quota::Quota,
};
use crate::{
    error::{Error, Result},
    redis::Redis,
};

/// Timeout of a query to Redis, after which a request is decided by the local limiter.
pub(super) const REDIS_TIMEOUT: Duration = Duration::from_millis(250);

pub(super) struct Shared {
    pub(super) redis: Redis,
    pub(super) script: Script,
    pub(super) block_script: Script,
    pub(super) breaker: Breaker,
    /// Number of processes that share the limits, including this one, as of the last heartbeat.
    pub(super) process_count: AtomicU32,
    /// Local limiters of each quota. There are a handful of quotas, so a list is the fastest map.
    pub(super) limiters: RwLock<Vec<Arc<LocalLimiters>>>,
}

impl Shared {
    /// Takes one token from each bucket, or from none. The error is the time to wait before the next attempt.
    pub(super) async fn take(&self, quota: &Quota, buckets: &[Bucket]) -> Result<(), Duration> {
        let limiters = self.limiters(quota);
        let queried_at = Instant::now();
        limiters.front.take(buckets, queried_at)?;
        let Some(waits) = self.query(quota, buckets).await else {
            counter!("sentryops_limit_fallback_total", "quota" => quota.name).increment(1);
            return limiters.share(self.process_count()).take(buckets, Instant::now());
        };
        let mut longest = Duration::ZERO;
        for (bucket, wait) in buckets.iter().zip(waits) {
            if !wait.is_zero() {
                // The wait counts from before the query, so the bucket is never blocked for longer than Redis requires.
                limiters.front.block(*bucket, queried_at + wait, queried_at);
                longest = longest.max(wait);
            }
        }
        if longest.is_zero() { Ok(()) } else { Err(longest) }
    }

    /// Takes one token from the block of the key, and a new block from Redis if necessary. The error is the time to wait
    /// before the next attempt.
    pub(super) async fn take_in_blocks(&self, quota: &Quota, key: &str) -> Result<(), Duration> {
        let limiters = self.limiters(quota);
        match limiters.blocks.take(key, Instant::now()) {
            Some(decided) => decided,
            // Boxed, because this future is part of that of every request, and is rarely needed.
            None => Box::pin(self.take_from_next_block(quota, key, &limiters)).await,
        }
    }

    /// Takes a block from Redis, and one token from it. One request at a time does so for a key; the others wait.
    async fn take_from_next_block(
        &self,
        quota: &Quota,
        key: &str,
        limiters: &LocalLimiters,
    ) -> Result<(), Duration> {
        let blocks = &limiters.blocks;
        if !self.breaker.is_open() {
            let refill = blocks.refill(key, Instant::now());
            let _refilling = refill.lock().await;
            let queried_at = Instant::now();
            if let Some(decided) = blocks.take(key, queried_at) {
                return decided;
            }
            if let Some((taken, wait)) = self.query_block(quota, Bucket::new(key)).await {
                let Some(left) = taken.checked_sub(1) else {
                    blocks.record(key, BlockState::EmptyUntil(queried_at + wait));
                    return Err(wait);
                };
                blocks.record(key, BlockState::Tokens(left, queried_at + quota.per));
                return Ok(());
            }
        }
        counter!("sentryops_limit_fallback_total", "quota" => quota.name).increment(1);
        limiters.share(self.process_count()).take(&[Bucket::new(key)], Instant::now())
    }

    /// Takes a block from Redis. Returns the number of tokens in it and, if there are none, the time to wait; `None` if
    /// the breaker is open or Redis failed.
    async fn query_block(&self, quota: &Quota, bucket: Bucket) -> Option<(u32, Duration)> {
        let args = vec![
            quota.interval_us().to_string().into(),
            i64::from(quota.count.get()).into(),
            i64::from(quota.block()).into(),
        ];
        let keys = vec![bucket.redis_key(quota)];
        let (taken, wait_us): (u32, u64) = self.run(&self.block_script, keys, args).await?;
        Some((taken, Duration::from_micros(wait_us)))
    }

    /// Runs the script in Redis. Returns the wait for each bucket, or `None` if the breaker is open or Redis failed.
    async fn query(&self, quota: &Quota, buckets: &[Bucket]) -> Option<Vec<Duration>> {
        let keys = buckets.iter().map(|bucket| bucket.redis_key(quota)).collect();
        let args =
            vec![quota.interval_us().to_string().into(), i64::from(quota.count.get()).into()];
        let waits_us: Vec<u64> = self.run(&self.script, keys, args).await?;
        Some(waits_us.into_iter().map(Duration::from_micros).collect())
    }

    /// Runs a script in Redis; returns `None` if the breaker is open or Redis failed.
    async fn run<R: FromValue>(
        &self,
        script: &Script,
        keys: Vec<String>,
        args: Vec<Value>,
    ) -> Option<R> {
        if self.breaker.is_open() {
            return None;
        }
        match self.redis.run(script, keys, args, REDIS_TIMEOUT).await {
            Ok(result) => {
                self.record_success();
                Some(result)
            }
            Err(error) => {
                self.record_failure(&error);
                None
            }
        }
    }

    pub(super) fn record_success(&self) {
        if self.breaker.record_success() {
            info!("Redis is available again: rate limits are enforced across all processes");
        }
    }

    pub(super) fn record_failure(&self, error: &Error) {
        if self.breaker.record_failure() {
            let process_count = self.process_count();
            let cause = error.source().map(ToString::to_string).unwrap_or_default();
            warn!(
                limit.fleet = process_count,
                redis.error = cause,
                "Redis is unavailable: this process enforces 1/{process_count} of each rate limit locally; probing Redis every second",
            );
        }
    }

    pub(super) fn process_count(&self) -> NonZeroU32 {
        NonZeroU32::new(self.process_count.load(Ordering::Relaxed)).unwrap_or(NonZeroU32::MIN)
    }

    /// Returns the local limiters of a quota.
    fn limiters(&self, quota: &Quota) -> Arc<LocalLimiters> {
        let of_quota = |limiters: &&Arc<LocalLimiters>| limiters.quota == *quota;
        let existing = self.limiters.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(limiters) = existing.iter().find(of_quota) {
            return limiters.clone();
        }
        drop(existing);
        let mut all = self.limiters.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(limiters) = all.iter().find(of_quota) {
            return limiters.clone();
        }
        let limiters = Arc::new(LocalLimiters::new(*quota));
        all.push(limiters.clone());
        limiters
    }

    pub(super) fn evict_full(&self, now: Instant) {
        let limiters = self.limiters.read().unwrap_or_else(PoisonError::into_inner).clone();
        for limiters in limiters {
            limiters.evict_full(now);
        }
    }
}
