//! What the fleet asks of itself.

pub mod schedule;
