//! Jobs, queues, workers, schedules.

mod job;
