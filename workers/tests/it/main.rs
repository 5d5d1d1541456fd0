//! Fleets against a real Postgres: what is promised of jobs, whatever becomes of those who do them.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

mod compatibility;
mod compliance;
mod fleet;
mod harness;
mod inventory;
mod queue;
