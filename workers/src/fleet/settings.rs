//! Settings of a worker process.

use std::time::Duration;

use domain::fleet::job::Queue;
use jobs::queue::renewal::LeaseConfig;

use crate::maintenance::Retention;

/// Concurrency and prefetch of one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueSettings {
    /// Maximum number of jobs that run at the same time.
    pub concurrency: usize,
    /// Number of jobs that are claimed before a handler is free.
    pub prefetch: usize,
}

impl QueueSettings {
    /// Returns the defaults of a queue. Queues of long jobs prefetch none; queues of short jobs prefetch up to 1,000.
    pub fn of(queue: Queue) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let (concurrency, prefetch) = match queue {
            Queue::Scan => (2 * cores, 0),
            Queue::Probe => (64, 200),
            Queue::Triage => (4, 0),
            Queue::Import => (cores, 0),
            Queue::Notify => (16, 32),
            Queue::Upkeep => (32, 1000),
        };
        Self { concurrency, prefetch }
    }
}

/// Settings of a worker process.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Queues from which the process claims jobs, with the settings of each.
    pub queues: Vec<(Queue, QueueSettings)>,
    /// Settings of leases and their renewal.
    pub leases: LeaseConfig,
    /// Drain timeout: time that running jobs have to finish during a shutdown.
    pub drain_timeout: Duration,
    /// Interval between two ticks of the maintenance. A tick reaps expired leases and pushes the jobs of due schedules.
    pub maintenance_interval: Duration,
    /// Retention of what ended.
    pub retention: Retention,
    /// Version of SentryOps that the process runs.
    pub version: String,
    /// Name of the machine on which the process runs.
    pub host: String,
}
