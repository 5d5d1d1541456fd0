//! Infrastructure that the processes share: the job queue in Postgres; rate limits and change notifications (hints) in
//! Redis.
//!
//! | file | what lives there |
//! |---|---|
//! | `job` | [`Job`], the arguments of a job; with queue, kind, version, maximum attempts |
//! | `queue` | the queue in Postgres: push, claim, lease, acknowledge |
//! | `compliance` | job types of compliance: re-evaluation of postures, compliance runs |
//! | `inventory` | job types of imports |
//! | `fleet` | job types of schedules; pushes the jobs of due schedules |
//! | `redis` | [`Redis`], the shared connection: reconnects indefinitely, applies a timeout to every command |
//! | `limit` | [`Limiter`]: takes one token from each of several buckets under a [`Quota`]; returns a [`Decision`] |
//! | `limit.lua`, `limit/block.lua` | the Lua scripts that take tokens from the buckets in Redis |
//! | `limit/quota` | [`Quota`], parsed from `10/minute` |
//! | `limit/bucket` | bucket names: hashed keys, networks of an address |
//! | `limit/block` | blocks of tokens taken in advance, for limits of every request |
//! | `limit/local` | the local limiters: in front of Redis, and in place of it |
//! | `limit/shared` | decides with Redis, or with the local limiters while Redis is unavailable |
//! | `limit/breaker` | the circuit breaker in front of Redis |
//! | `limit/heartbeat` | the heartbeat that counts processes and probes Redis |
//! | `event` | hints: notifications, without content, that rows may have changed |
//! | `event/publisher` | [`event::Publisher`]: sends hints after the commit |
//! | `event/listener` | [`event::Listener`]: receives hints over one Redis connection per process |
//! | `event/hub` | matches hints to subscribers |
//! | `error` | [`Error`] of the crate |
//!
//! Redis holds no data that must survive a restart. While Redis is unavailable, each process enforces rate limits
//! locally, and fetchers and subscribers poll Postgres.

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
pub use limit::{Decision, Limiter, Quota};
pub use queue::{
    failure::Failure,
    fetcher::ClaimedJob,
    push::{Push, push, push_all},
};
pub use redis::Redis;
