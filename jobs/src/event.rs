//! Hints on Redis that rows changed: published after the commit, ids only, and lost without regret.
//!
//! A commit never waits for Redis: what cannot be sent now is sent when Redis is back, what cannot be kept until then is
//! dropped and counted, and whoever listens reads the row again anyway. One channel for all organizations, because a
//! listener asks Postgres under its own.

mod hub;
mod listener;
mod publisher;

pub use hub::{Hints, Pace, Topic};
pub use listener::Listener;
pub use publisher::{CHANNEL, Publisher};
