//! What the processes share: limits now; the queue, events and the token budget as they come.
//!
//! | file | what lives there |
//! |---|---|
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
//! Redis holds nothing that we would miss: without it limits are enforced per process.

mod error;
pub mod event;
mod limit;
mod redis;

pub use error::{Error, Result};
pub use limit::{Decision, Limiter, Quota, address_bucket};
pub use redis::Redis;
