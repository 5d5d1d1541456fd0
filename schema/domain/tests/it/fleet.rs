//! Tests of jobs, workers and schedules.

mod job;
mod pending;
mod schedule;
mod worker;
