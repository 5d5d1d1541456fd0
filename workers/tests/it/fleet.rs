//! Schedules, run by worker processes.

mod schedule;
