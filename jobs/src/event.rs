//! Hints over Redis. A hint is a notification without content that rows may have changed: an `Event` of the crate
//! `domain`, which carries ids only. It is sent after the commit, and may be lost.
//!
//! A commit never waits for Redis. If a hint cannot be sent immediately, the publisher keeps it and retries until Redis
//! is available. If the buffer of the publisher is full, the hint is dropped and counted. A lost hint delays a
//! subscriber but does no harm, because subscribers also read their rows again at an interval ([`PollInterval`]). All
//! organizations share one channel: each subscriber reads the changed rows from Postgres, under its own organization.

mod hub;
mod listener;
mod publisher;

pub use hub::{HintSubscription, PollInterval, Topic};
pub use listener::Listener;
pub use publisher::{CHANNEL, Publisher};
