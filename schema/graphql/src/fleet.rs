//! GraphQL types and fields of jobs, workers and schedules.

pub(crate) mod job;
pub(crate) mod schedule;
pub(crate) mod worker;
