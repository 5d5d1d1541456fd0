//! What the processes share: the queue in Postgres; limits and events in Redis.
//!
//! | file | what lives there |
//! |---|---|
//! | `job` | [`Job`], what is to be done: queue, kind, version, attempts |
//! | `queue` | the queue in Postgres: push, claim, lease, end |
//! | `compliance`, `inventory`, `fleet` | a wing's jobs, a file a noun |
//! | `redis` | [`Redis`], the one connection: lazy, reconnecting for ever, every command with a deadline |
//! | `limit` | [`Limiter`]: a [`Quota`] is taken from one or more buckets, in [`Decision`] |
//! | `limit.lua` | the one place where a token is granted while Redis answers |
//! | `limit/quota` | [`Quota`], parsed from `10/minute` |
//! | `limit/bucket` | what names a bucket: hashed keys, [`address_bucket`] |
//! | `limit/local` | the local limits: in front of Redis, and instead of it |
//! | `limit/shared` | asking Redis, and deciding without it |
//! | `limit/breaker` | when Redis is not asked |
//! | `limit/fleet` | the heartbeat that counts processes and probes Redis |
//! | `event` · `event/publisher` | hints that rows changed · [`event::Publisher`]: sends them after the commit |
//! | `event/listener` · `event/hub` | [`event::Listener`]: one subscriber connection a process · who hears of what |
//! | `error` | [`Error`], one for the crate |
//!
//! Redis holds nothing that we would miss: without it limits are enforced per process, and queues are polled.

pub mod compliance;
mod error;
pub mod event;
pub mod fleet;
pub mod inventory;
pub mod job;
mod limit;
pub mod queue;
mod redis;

pub use error::{Error, Result};
pub use job::Job;
pub use limit::{Decision, Limiter, Quota, address_bucket};
pub use queue::{
    failure::Failure,
    fetcher::ClaimedJob,
    push::{Push, push, push_all},
};
pub use redis::Redis;
