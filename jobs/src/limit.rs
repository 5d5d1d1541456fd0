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
//! Limits that apply to every request are counted in blocks: a process takes a sixtieth of the quota from Redis at
//! once, because a query per request would cost more than a small request. See `block`.
//!
//! Given up: at most `count` requests in *every* window of length `per` (GCRA admits fewer than 2 × `count`), and
//! exactness while Redis is unavailable. Each process then admits its share: `count` divided by the number of
//! processes, rounded up. A switch between the two modes, or a loss of Redis' data, may admit up to `count` more
//! requests per process. Revisit if a limit must be a hard quota: it then belongs in Postgres.

mod block;
mod breaker;
mod bucket;
mod heartbeat;
mod local;
mod quota;
mod shared;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use fred::types::scripts::Script;
use metrics::counter;
use tokio_util::task::AbortOnDropHandle;

use self::breaker::Breaker;
use self::bucket::{Bucket, address_buckets};
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
            block_script: Script::from_lua(include_str!("limit/block.lua")),
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
    /// A key must begin with its type (`account:…`, `user:…`, `address:…`). Otherwise a caller could choose an
    /// account name that equals another client's address, and empty that client's bucket. Returns within 300 ms even if
    /// Redis does not answer.
    pub async fn take(&self, quota: &Quota, keys: &[&str]) -> Decision {
        let buckets = Bucket::all(keys);
        decision(quota, self.shared.take(quota, &buckets).await)
    }

    /// Takes one token for `action` from the bucket of the client's address. An IPv6 address is counted in its /64, and
    /// with 4 and 16 times the quota in its /56 and /48. The narrowest network is asked first, so a network that has
    /// used up its own tokens takes none from its neighbours.
    pub async fn take_of_address(&self, quota: &Quota, action: &str, address: IpAddr) -> Decision {
        for (key, factor) in address_buckets(address) {
            let key = format!("{action} {key}");
            let decision = self.take(&quota.times(factor), &[&key]).await;
            if decision != Decision::Allowed {
                return decision;
            }
        }
        Decision::Allowed
    }

    /// Takes one token from the bucket of the key, out of a block that this process has taken from Redis. Costs a query
    /// to Redis only once per block, which is a sixtieth of the quota.
    pub async fn take_in_blocks(&self, quota: &Quota, key: &str) -> Decision {
        decision(quota, self.shared.take_in_blocks(quota, key).await)
    }

    /// Takes one token from the bucket of the client's address, as [`Limiter::take_of_address`] does, out of blocks.
    pub async fn take_of_address_in_blocks(&self, quota: &Quota, address: IpAddr) -> Decision {
        for (key, factor) in address_buckets(address) {
            let decision = self.take_in_blocks(&quota.times(factor), &key).await;
            if decision != Decision::Allowed {
                return decision;
            }
        }
        Decision::Allowed
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

fn decision(quota: &Quota, result: Result<(), Duration>) -> Decision {
    match result {
        Ok(()) => Decision::Allowed,
        Err(retry_after) => {
            counter!("sentryops_limit_refused_total", "quota" => quota.name).increment(1);
            Decision::Refused { retry_after }
        }
    }
}
