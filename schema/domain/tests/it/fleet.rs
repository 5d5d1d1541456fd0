//! Jobs, workers, schedules.

mod job;
mod schedule;
mod worker;
