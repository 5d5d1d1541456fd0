//! Tests of jobs, queues, workers and schedules.

mod job;
