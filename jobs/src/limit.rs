//! Rate limits that are exact across all processes while Redis is available.
//!
//! Chosen: GCRA (the generic cell rate algorithm, a token bucket) in one Lua script on Redis' clock, so the clocks of
//! the processes do not matter. In front of Redis, each process has a local limiter of the same quota, so a flood of
//! requests with one key does not reach Redis. A token that Redis refuses has already been taken from the local
//! limiter. It is not returned: the local limiter blocks the key until the time that Redis returned. So at most one
//! local token per refill interval is lost, and the local limiter is at most one refill interval (`per / count`)
//! stricter than Redis. Redis decides on every request that the local limiter admits, so the local limiter never admits
//! more than Redis does.
//!
//! Given up: at most `count` requests in *every* window of length `per` (GCRA admits fewer than 2 × `count`), and
//! exactness while Redis is unavailable. Each process then admits its share: `count` divided by the number of
//! processes, rounded up. A switch between the two modes, or a loss of Redis' data, may admit up to `count` more
//! requests per process. Revisit if a limit must be a hard quota: it then belongs in Postgres.

mod breaker;
mod bucket;
mod heartbeat;
mod local;
mod quota;
mod shared;

use std::num::NonZeroU32;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use fred::types::scripts::Script;
use metrics::counter;
use tokio_util::task::AbortOnDropHandle;

use self::breaker::Breaker;
use self::bucket::Bucket;
pub use self::bucket::address_bucket;
pub use self::quota::Quota;
use self::shared::Shared;
use crate::redis::Redis;

/// Decision about a request, as made by [`Limiter::take`].
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The request is allowed, and one token was taken from each bucket.
    Allowed,
    /// The request is refused, because at least one bucket has no token.
    Refused {
        /// Time to wait before the next attempt.
        retry_after: Duration,
    },
}

/// Rate limiter: takes tokens from buckets. A bucket holds the tokens of one key under one quota. Create one limiter
/// per process. Cloning is cheap; dropping the last clone stops the heartbeat.
#[derive(Clone)]
pub struct Limiter {
    shared: Arc<Shared>,
    _heartbeat: Arc<AbortOnDropHandle<()>>,
}

impl Limiter {
    /// Creates a limiter and spawns its heartbeat on the current Tokio runtime.
    pub fn new(redis: Redis) -> Self {
        let shared = Arc::new(Shared {
            redis,
            script: Script::from_lua(include_str!("limit.lua")),
            breaker: Breaker::default(),
            process_count: AtomicU32::new(1),
            limiters: RwLock::default(),
        });
        let heartbeat =
            AbortOnDropHandle::new(tokio::spawn(heartbeat::send_heartbeats(shared.clone())));
        Self { shared, _heartbeat: Arc::new(heartbeat) }
    }

    /// Takes one token from the bucket of each key, e.g. of `account` and `address`. If any bucket is empty, takes
    /// none. Without keys, all callers share one bucket.
    ///
    /// A key must begin with its type (`account:…`, `user:…`, [`address_bucket`]). Otherwise a caller could choose an
    /// account name that equals another client's address, and empty that client's bucket. Returns within 300 ms even if
    /// Redis does not answer.
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

    /// Returns the number of processes that share the limits, including this one, as of the last heartbeat.
    pub fn process_count(&self) -> NonZeroU32 {
        self.shared.process_count()
    }

    /// Returns true while the circuit breaker is open: Redis is not queried, and this process admits only its own share
    /// of each quota.
    pub fn is_degraded(&self) -> bool {
        self.shared.breaker.is_open()
    }
}
