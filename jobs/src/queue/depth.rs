//! Depth of the queues: the number of jobs that wait for a worker. Above a limit, the API sheds the operations that
//! would add more.
//!
//! Chosen: a figure that each process measures periodically, so a request costs no statement. Given up: exactness
//! within one interval. The queues count as full until the depth is a fifth below the limit; otherwise the API would
//! accept and refuse in turns while the depth is close to the limit.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use domain::{Db, Result, fleet::job::Job};
use metrics::{counter, gauge};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

/// Interval between two measurements.
const INTERVAL: Duration = Duration::from_secs(5);

/// Depth of the queues of all organizations, compared with a limit. Cloning is cheap; clones share the state.
#[derive(Debug, Clone)]
pub struct QueueDepth {
    limit: NonZeroU32,
    is_full: Arc<AtomicBool>,
}

impl QueueDepth {
    /// Time after which a caller may try again while the queues are full.
    pub const RETRY_AFTER: Duration = Duration::from_secs(10);

    /// Creates a depth that has not been measured, so the queues do not count as full. `limit` is the number of waiting
    /// jobs from which they do.
    pub fn new(limit: NonZeroU32) -> Self {
        Self { limit, is_full: Arc::default() }
    }

    /// Returns true if an operation may start jobs. Counts the operations that may not.
    pub fn admits_jobs(&self) -> bool {
        let is_full = self.is_full();
        if is_full {
            counter!("sentryops_operations_shed_total").increment(1);
        }
        !is_full
    }

    fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// Measures the depth periodically, and never returns. While the database is unavailable, the last result stays.
    pub async fn watch(&self, db: &Db) {
        describe_metrics();
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.measure(db).await {
                let error = &error as &dyn std::error::Error;
                warn!(error, "the depth of the queues cannot be measured");
            }
        }
    }

    /// Measures the depth once.
    pub async fn measure(&self, db: &Db) -> Result<()> {
        let tx = db.fleet().await?;
        let waiting = Job::count_waiting(&tx, i64::from(self.limit.get())).await?;
        tx.commit().await?;
        self.record(waiting);
        Ok(())
    }

    fn record(&self, waiting: i64) {
        let limit = i64::from(self.limit.get());
        let was_full = self.is_full();
        let is_full = waiting >= if was_full { limit - limit / 5 } else { limit };
        self.is_full.store(is_full, Ordering::Relaxed);
        #[expect(clippy::cast_precision_loss, reason = "the limit is far below 2^53")]
        gauge!("sentryops_jobs_waiting").set(waiting as f64);
        gauge!("sentryops_queues_full").set(if is_full { 1.0 } else { 0.0 });
        match (was_full, is_full) {
            (false, true) => {
                warn!("{limit} jobs are waiting: operations that start jobs are refused");
            }
            (true, false) => {
                info!("the queues are no longer full: operations may start jobs again");
            }
            _ => {}
        }
    }
}

/// Registers the descriptions of the metrics for `/metrics`.
fn describe_metrics() {
    metrics::describe_gauge!(
        "sentryops_jobs_waiting",
        "Jobs of all organizations that wait for a worker, counted up to SHED_QUEUE_DEPTH."
    );
    metrics::describe_gauge!(
        "sentryops_queues_full",
        "1 while the API refuses operations that start jobs, otherwise 0."
    );
    metrics::describe_counter!(
        "sentryops_operations_shed_total",
        "Operations that were refused because the job queues were full."
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_queues_stay_full_until_a_fifth_is_done() {
        let depth = QueueDepth::new(NonZeroU32::new(100).unwrap());
        let steps = [(99, false), (100, true), (81, true), (80, true), (79, false), (99, false)];
        for (waiting, is_full) in steps {
            depth.record(waiting);
            assert_eq!(depth.is_full(), is_full, "{waiting}");
        }
    }

    #[test]
    fn a_limit_of_one_is_left_again() {
        let depth = QueueDepth::new(NonZeroU32::MIN);
        for (waiting, is_full) in [(0, false), (1, true), (0, false)] {
            depth.record(waiting);
            assert_eq!(depth.is_full(), is_full, "{waiting}");
        }
    }
}
