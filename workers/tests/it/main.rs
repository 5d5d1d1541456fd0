//! Fleets against a real Postgres: what is promised of jobs, whatever becomes of those who do them.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

mod ending;
mod failing;
mod history;
mod import;
mod losing;
mod order;
mod scan;
mod schedule;
mod stage;
