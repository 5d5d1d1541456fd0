//! Jobs, workers, schedules.

pub(crate) mod job;
pub(crate) mod schedule;
pub(crate) mod worker;
