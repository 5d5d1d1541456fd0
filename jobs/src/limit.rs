//! How often somebody may do something, exact across all processes.
//!
//! Chosen: GCRA in one Lua script on Redis' clock; no process' clock matters. In front of it a local
//! wall of the same quota, so that a flood from one key never reaches Redis.
//! What Redis refuses has already been taken locally, and is not given back: it need not be. Whoever
//! Redis refuses is shut out locally until the instant Redis named, so at most one is taken in vain
//! per refill, and the front is never more than one refill (`per / count`) stricter than Redis. It is
//! never laxer in sum, for Redis decides.
//! Given up: a promise of at most `count` in *every* span of `per` (GCRA: less than twice), and
//! exactness without Redis: each process then grants its share, rounded up; a change between the two,
//! or Redis losing its data, may admit `count` more per process. Choose again if a limit must be a
//! hard quota: then it belongs into Postgres.

mod breaker;
mod bucket;
mod fleet;
mod local;
mod quota;

use std::collections::HashMap;
use std::error::Error as _;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use fred::types::scripts::Script;
use metrics::counter;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use self::breaker::Breaker;
use self::bucket::Bucket;
pub use self::bucket::address_bucket;
use self::local::Walls;
pub use self::quota::Quota;
use crate::{Error, Redis, Result};

/// How long a request waits for Redis before it is decided without it.
const PATIENCE: Duration = Duration::from_millis(250);

/// Whether it may be done.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It may, and has been counted.
    Allowed,
    /// It may not.
    Refused {
        /// How long to wait before trying again.
        retry_after: Duration,
    },
}

/// Takes from buckets. One for each process; cloning is cheap, and the last clone's drop ends its
/// heartbeat.
#[derive(Clone)]
pub struct Limiter {
    shared: Arc<Shared>,
    _heartbeat: Arc<AbortOnDropHandle<()>>,
}

struct Shared {
    redis: Redis,
    script: Script,
    breaker: Breaker,
    /// How many processes were last seen, ourselves included.
    fleet: AtomicU32,
    walls: RwLock<HashMap<&'static str, Arc<Walls>>>,
}

impl Limiter {
    /// A limiter and its heartbeat, a task of the current Tokio runtime.
    pub fn new(redis: Redis) -> Self {
        let shared = Arc::new(Shared {
            redis,
            script: Script::from_lua(include_str!("limit.lua")),
            breaker: Breaker::default(),
            fleet: AtomicU32::new(1),
            walls: RwLock::default(),
        });
        let heartbeat = AbortOnDropHandle::new(tokio::spawn(fleet::beat(shared.clone())));
        Self { shared, _heartbeat: Arc::new(heartbeat) }
    }

    /// Takes one from the bucket of each key, or from none: `account` and `address` at once. Without
    /// keys there is one bucket for all.
    ///
    /// A key must tell what it is (`account:…`, `user:…`, [`address_bucket`]): otherwise somebody
    /// names himself like another's address and drains it. Answers within 300 ms whatever Redis does.
    pub async fn take(&self, quota: &Quota, keys: &[&str]) -> Decision {
        let buckets = Bucket::all(keys);
        match self.shared.take(quota, &buckets).await {
            Ok(()) => Decision::Allowed,
            Err(retry_after) => {
                counter!("sentryops_limit_refused_total", "quota" => quota.name).increment(1);
                Decision::Refused { retry_after }
            }
        }
    }

    /// How many processes share the limits, ourselves included, as far as we have seen.
    pub fn fleet(&self) -> NonZeroU32 {
        self.shared.fleet()
    }

    /// Whether Redis is not asked at present, and this process grants its share alone.
    pub fn is_alone(&self) -> bool {
        self.shared.breaker.is_open()
    }
}

impl Shared {
    /// The error is how long to wait.
    async fn take(&self, quota: &Quota, buckets: &[Bucket]) -> Result<(), Duration> {
        let walls = self.walls(quota);
        let asked_at = Instant::now();
        walls.front.take(buckets, asked_at)?;
        let Some(waits) = self.ask(quota, buckets).await else {
            counter!("sentryops_limit_fallback_total", "quota" => quota.name).increment(1);
            return walls.share(self.fleet()).take(buckets, Instant::now());
        };
        let mut longest = Duration::ZERO;
        for (bucket, wait) in buckets.iter().zip(waits) {
            if !wait.is_zero() {
                // Counted from before we asked: never longer than Redis meant.
                walls.front.shut(*bucket, asked_at + wait, asked_at);
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

    fn answered(&self) {
        if self.breaker.answered() {
            info!("Redis answers again: limits are shared by all processes");
        }
    }

    fn failed(&self, error: &Error) {
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

    fn fleet(&self) -> NonZeroU32 {
        NonZeroU32::new(self.fleet.load(Ordering::Relaxed)).unwrap_or(NonZeroU32::MIN)
    }

    /// The walls of a quota; new ones if it was configured anew.
    fn walls(&self, quota: &Quota) -> Arc<Walls> {
        let known =
            self.walls.read().unwrap_or_else(PoisonError::into_inner).get(quota.name).cloned();
        if let Some(walls) = known.filter(|walls| walls.quota == *quota) {
            return walls;
        }
        let mut all = self.walls.write().unwrap_or_else(PoisonError::into_inner);
        match all.get(quota.name) {
            Some(walls) if walls.quota == *quota => walls.clone(),
            _ => {
                let walls = Arc::new(Walls::new(*quota));
                all.insert(quota.name, walls.clone());
                walls
            }
        }
    }

    fn tidy(&self, now: Instant) {
        let walls: Vec<_> =
            self.walls.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for walls in walls {
            walls.tidy(now);
        }
    }
}
