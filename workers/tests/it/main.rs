//! Tests of worker processes against a real Postgres: the guarantees for jobs, whatever happens to the processes.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

mod compatibility;
mod compliance;
mod fleet;
mod harness;
mod inventory;
mod queue;
