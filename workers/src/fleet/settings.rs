//! Settings of a process of the fleet.

use std::time::Duration;

use domain::fleet::job::Queue;
use jobs::queue::renewal::LeaseConfig;

/// How one queue is worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueSettings {
    /// Jobs at a time.
    pub concurrency: usize,
    /// Jobs claimed ahead.
    pub prefetch: usize,
}

impl QueueSettings {
    /// What suits a queue unless somebody knows better: long jobs are not claimed ahead, short ones in hundreds.
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

/// How a process works.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The queues it takes from.
    pub queues: Vec<(Queue, QueueSettings)>,
    /// How leases are kept.
    pub leases: LeaseConfig,
    /// How long running jobs may go on after a stop.
    pub drain: Duration,
    /// How often it is looked for lost leases and due schedules.
    pub maintenance_interval: Duration,
    /// Days for which it is kept what became of jobs.
    pub history_days: u16,
    /// The version it is of.
    pub version: String,
    /// The machine it runs on.
    pub host: String,
}
