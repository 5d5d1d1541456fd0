//! State of a limiter, shared with its heartbeat: Redis asked through the breaker, the local limiters in front and instead.

use std::{
    collections::HashMap,
    error::Error as _,
    num::NonZeroU32,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use fred::types::scripts::Script;
use metrics::counter;
use tracing::{info, warn};

use super::{breaker::Breaker, bucket::Bucket, local::LocalLimiters, quota::Quota};
use crate::{
    error::{Error, Result},
    redis::Redis,
};

/// How long a request waits for Redis before it is decided without it.
pub(super) const PATIENCE: Duration = Duration::from_millis(250);

pub(super) struct Shared {
    pub(super) redis: Redis,
    pub(super) script: Script,
    pub(super) breaker: Breaker,
    /// How many processes were last seen, ourselves included.
    pub(super) fleet: AtomicU32,
    pub(super) limiters: RwLock<HashMap<&'static str, Arc<LocalLimiters>>>,
}

impl Shared {
    /// The error is how long to wait.
    pub(super) async fn take(&self, quota: &Quota, buckets: &[Bucket]) -> Result<(), Duration> {
        let limiters = self.limiters(quota);
        let asked_at = Instant::now();
        limiters.front.take(buckets, asked_at)?;
        let Some(waits) = self.ask(quota, buckets).await else {
            counter!("sentryops_limit_fallback_total", "quota" => quota.name).increment(1);
            return limiters.share(self.fleet()).take(buckets, Instant::now());
        };
        let mut longest = Duration::ZERO;
        for (bucket, wait) in buckets.iter().zip(waits) {
            if !wait.is_zero() {
                // Counted from before we asked: never longer than Redis meant.
                limiters.front.shut(*bucket, asked_at + wait, asked_at);
                longest = longest.max(wait);
            }
        }
        if longest.is_zero() { Ok(()) } else { Err(longest) }
    }

    /// What Redis says: how long to wait for each bucket. Nothing if it cannot be asked.
    async fn ask(&self, quota: &Quota, buckets: &[Bucket]) -> Option<Vec<Duration>> {
        if self.breaker.is_open() {
            return None;
        }
        let keys = buckets.iter().map(|bucket| bucket.redis_key(quota)).collect();
        let args =
            vec![quota.interval_us().to_string().into(), i64::from(quota.count.get()).into()];
        match self.redis.run::<Vec<u64>>(&self.script, keys, args, PATIENCE).await {
            Ok(waits_us) => {
                self.answered();
                Some(waits_us.into_iter().map(Duration::from_micros).collect())
            }
            Err(error) => {
                self.failed(&error);
                None
            }
        }
    }

    pub(super) fn answered(&self) {
        if self.breaker.answered() {
            info!("Redis answers again: limits are shared by all processes");
        }
    }

    pub(super) fn failed(&self, error: &Error) {
        if self.breaker.failed() {
            let fleet = self.fleet();
            let cause = error.source().map(ToString::to_string).unwrap_or_default();
            warn!(
                limit.fleet = fleet,
                redis.error = cause,
                "Redis does not answer: this process grants 1/{fleet} of each limit by itself",
            );
        }
    }

    pub(super) fn fleet(&self) -> NonZeroU32 {
        NonZeroU32::new(self.fleet.load(Ordering::Relaxed)).unwrap_or(NonZeroU32::MIN)
    }

    /// The limiters of a quota; new ones if it was configured anew.
    fn limiters(&self, quota: &Quota) -> Arc<LocalLimiters> {
        let known =
            self.limiters.read().unwrap_or_else(PoisonError::into_inner).get(quota.name).cloned();
        if let Some(limiters) = known.filter(|limiters| limiters.quota == *quota) {
            return limiters;
        }
        let mut all = self.limiters.write().unwrap_or_else(PoisonError::into_inner);
        match all.get(quota.name) {
            Some(limiters) if limiters.quota == *quota => limiters.clone(),
            _ => {
                let limiters = Arc::new(LocalLimiters::new(*quota));
                all.insert(quota.name, limiters.clone());
                limiters
            }
        }
    }

    pub(super) fn tidy(&self, now: Instant) {
        let limiters: Vec<_> = self
            .limiters
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect();
        for limiters in limiters {
            limiters.tidy(now);
        }
    }
}
