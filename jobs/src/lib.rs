//! What the processes share: the queue in Postgres; limits and events in Redis.
//!
//! | file | what lives there |
//! |---|---|
//! | `job` | [`Job`], what is to be done: queue, kind, version, attempts |
//! | `push` | [`push()`], [`push_all`], [`Push`]: in the transaction of the change that wants it |
//! | `scan`, `import`, `schedule` | the jobs of compliance runs and of imports; what is due, as jobs |
//! | `claim`, `lease` | the queue in SQL: claim, promote; renew, finish, settle, reap |
//! | `history` | what became of jobs, by the day |
//! | `fetch`, `settle` | claiming ahead, telling in batches how jobs ended |
//! | `held` | the claims of this process, renewed on a thread of their own |
//! | `backend` | all of that as a backend of apalis, and the layer that hears how a job ended |
//! | `failure`, `retry` | [`Failure`]: retry, abort, snooze; when it is tried again |
//! | `redis` | [`Redis`], the one connection: lazy, reconnecting for ever, every command with a deadline |
//! | `limit` | [`Limiter`]: a [`Quota`] is taken from one or more buckets, in [`Decision`] |
//! | `limit.lua` | the one place where a token is granted while Redis answers |
//! | `limit/quota` | [`Quota`], parsed from `10/minute` |
//! | `limit/bucket` | what names a bucket: hashed keys, [`address_bucket`] |
//! | `limit/wall` | the local limits: in front of Redis, and instead of it |
//! | `limit/breaker` | when Redis is not asked |
//! | `limit/fleet` | the heartbeat that counts processes and probes Redis |
//! | `event` | [`event::Publisher`]: hints that rows changed, after the commit |
//! | `event/listener` · `event/hub` | [`event::Listener`]: one subscriber connection a process · who hears of what |
//! | `error` | [`Error`], one for the crate |
//!
//! Redis holds nothing that we would miss: without it limits are enforced per process, and queues are polled.

pub mod backend;
pub mod claim;
mod error;
pub mod event;
pub mod failure;
mod fetch;
pub mod held;
pub mod history;
pub mod import;
pub mod job;
pub mod lease;
mod limit;
pub mod push;
mod redis;
mod retry;
pub mod scan;
pub mod schedule;
mod settle;

pub use error::{Error, Result};
pub use failure::Failure;
pub use fetch::Taken;
pub use job::Job;
pub use limit::{Decision, Limiter, Quota, address_bucket};
pub use push::{Push, push, push_all};
pub use redis::Redis;
