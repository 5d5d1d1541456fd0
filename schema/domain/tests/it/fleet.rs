//! Jobs, workers, schedules.

mod job;
mod pending;
mod schedule;
mod worker;
