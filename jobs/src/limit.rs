//! How often somebody may do something, exact across all processes.
//!
//! Chosen: GCRA in one Lua script on Redis' clock; no process' clock matters. In front of it a local
//! limiter of the same quota, so that a flood from one key never reaches Redis.
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

impl Limiter {
    /// A limiter and its heartbeat, a task of the current Tokio runtime.
    pub fn new(redis: Redis) -> Self {
        let shared = Arc::new(Shared {
            redis,
            script: Script::from_lua(include_str!("limit.lua")),
            breaker: Breaker::default(),
            fleet: AtomicU32::new(1),
            limiters: RwLock::default(),
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
