//! Maintenance: background work that every worker process does in addition to running jobs. It sends heartbeats, reaps
//! expired leases, deletes old job history and stale workers, and runs the periodic tasks of other modules. Reaping
//! requeues the jobs whose leases have expired, or buries (dead-letters) them if no attempt is left. A tick is one pass
//! of the maintenance loop; it runs every step that is due.
//!
//! The maintenance does not depend on the modules with periodic tasks: [`PeriodicTasks`] lists the tasks.
//!
//! Several processes may run the maintenance at the same time. Rows that another process has locked are skipped.

use std::{
    collections::HashSet,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use domain::{
    Db,
    access::audit::AuditEntry,
    base::event::Event,
    fleet::worker::{NewWorker, Worker},
};
use jobs::queue::{claims::ClaimRegistry, history, lease};
use tokio_util::sync::CancellationToken;

/// Interval between two heartbeats of a worker.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// Interval between two deletions of old job history and of stale workers, i.e. workers without a heartbeat for an
/// hour.
pub(crate) const CLEANUP_INTERVAL: Duration = Duration::from_mins(10);
/// Grace period after an outage of the database. Workers renew their leases during this time, and no lease is reaped.
/// Also the minimum time without a successful step after which an outage is assumed.
const OUTAGE_GRACE: Duration = Duration::from_secs(5);

/// Times for which rows are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Retention of ended jobs and ended import runs, in days.
    pub history_days: u16,
    /// Retention of the audit trail, in days.
    pub audit_days: u16,
}

/// Arguments of a periodic task.
#[derive(Debug, Clone)]
pub struct TaskContext {
    /// Database in which the task works.
    pub db: Db,
    /// Times for which rows are kept.
    pub retention: Retention,
}

type TaskFuture = Pin<Box<dyn Future<Output = domain::Result<()>> + Send>>;

/// A periodic task of another module.
struct PeriodicTask {
    /// Verb phrase that completes the log message "maintenance could not …".
    action: &'static str,
    /// Time between two runs; zero to run at every tick.
    interval: Duration,
    run: Box<dyn Fn(TaskContext) -> TaskFuture + Send + Sync>,
}

/// Periodic tasks of the other modules, in the order in which they run.
#[derive(Default)]
pub struct PeriodicTasks(Vec<PeriodicTask>);

impl PeriodicTasks {
    /// Returns an empty list of tasks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a task that runs at every tick of the maintenance. `action` is a verb phrase that completes the log message
    /// "maintenance could not …".
    #[must_use]
    pub fn at_every_tick<F, Fut>(self, action: &'static str, task: F) -> Self
    where
        F: Fn(TaskContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = domain::Result<()>> + Send + 'static,
    {
        self.at_interval(Duration::ZERO, action, task)
    }

    /// Adds a task that runs at the first tick, and again whenever `interval` has passed. `action` is a verb phrase
    /// that completes the log message "maintenance could not …".
    #[must_use]
    pub fn at_interval<F, Fut>(mut self, interval: Duration, action: &'static str, task: F) -> Self
    where
        F: Fn(TaskContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = domain::Result<()>> + Send + 'static,
    {
        self.0.push(PeriodicTask {
            action,
            interval,
            run: Box::new(move |context| Box::pin(task(context))),
        });
        self
    }
}

/// Maintenance of one worker process, which runs until `stop` is cancelled.
pub(crate) struct Maintenance {
    pub(crate) db: Db,
    pub(crate) this_worker: NewWorker,
    pub(crate) registry: ClaimRegistry,
    pub(crate) periodic_tasks: Arc<PeriodicTasks>,
    pub(crate) retention: Retention,
    pub(crate) interval: Duration,
    pub(crate) draining: CancellationToken,
    pub(crate) stop: CancellationToken,
}

/// Time of the last run of each step that has its own interval; `None` before the first run.
struct LastRuns {
    heartbeat: Option<Instant>,
    periodic_tasks: Vec<Option<Instant>>,
    clean_up: Option<Instant>,
}

/// Logs the error if a step failed. Returns true on success.
fn log_failure(action: &'static str, result: domain::Result<()>) -> bool {
    let Err(error) = result else { return true };
    let error = &error as &dyn std::error::Error;
    tracing::warn!(error, "maintenance could not {action}: will retry at the next run");
    false
}

fn is_due(last_run: Option<Instant>, interval: Duration) -> bool {
    last_run.is_none_or(|at| at.elapsed() >= interval)
}

impl Maintenance {
    /// Runs until `stop` is cancelled.
    pub(crate) async fn run(self) {
        let mut last_runs = LastRuns {
            heartbeat: None,
            periodic_tasks: vec![None; self.periodic_tasks.0.len()],
            clean_up: None,
        };
        let mut last_success_at = Instant::now();
        let mut grace_until = None;
        let mut tick = tokio::time::interval(self.interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            // `OUTAGE_GRACE` is also the threshold that detects an outage. Successes are recorded once per tick, so
            // the threshold is at least two intervals.
            if last_success_at.elapsed() > OUTAGE_GRACE.max(2 * self.interval) {
                grace_until = Some(Instant::now() + OUTAGE_GRACE);
            }
            let in_grace_period = grace_until.is_some_and(|until| Instant::now() < until);
            if self.tick(&mut last_runs, in_grace_period).await {
                last_success_at = Instant::now();
            }
        }
    }

    /// Runs the steps that are due, independently of each other, so that the failure of one does not prevent the
    /// others. Returns true if a step other than the clean-up succeeded, which shows that the database is available.
    /// The clean-up does not count: it runs only every [`CLEANUP_INTERVAL`], too rarely to detect an outage.
    async fn tick(&self, last_runs: &mut LastRuns, in_grace_period: bool) -> bool {
        let mut has_succeeded = false;
        if is_due(last_runs.heartbeat, HEARTBEAT_INTERVAL) {
            has_succeeded |= log_failure("send the heartbeat", self.heartbeat().await);
            last_runs.heartbeat = Some(Instant::now());
        }
        if !in_grace_period {
            has_succeeded |= log_failure("reap expired leases", self.reap().await);
        }
        for (task, at) in self.periodic_tasks.0.iter().zip(&mut last_runs.periodic_tasks) {
            if is_due(*at, task.interval) {
                let context = TaskContext { db: self.db.clone(), retention: self.retention };
                has_succeeded |= log_failure(task.action, (task.run)(context).await);
                *at = Some(Instant::now());
            }
        }
        if is_due(last_runs.clean_up, CLEANUP_INTERVAL) {
            log_failure("delete old job history and stale workers", self.clean_up().await);
            last_runs.clean_up = Some(Instant::now());
        }
        has_succeeded
    }

    async fn heartbeat(&self) -> domain::Result<()> {
        let tx = self.db.fleet().await?;
        let running = i32::try_from(self.registry.count()).unwrap_or(i32::MAX);
        // False if the worker's row is missing: the worker has not registered yet, or its row was deleted as stale.
        if !Worker::heartbeat(&tx, self.this_worker.id, running, self.draining.is_cancelled())
            .await?
        {
            Worker::register(&tx, &self.this_worker).await?;
        }
        tx.commit().await
    }

    async fn reap(&self) -> domain::Result<()> {
        let tx = self.db.fleet().await?;
        let reaped = lease::reap(&tx).await?;
        let affected_queues: HashSet<_> = reaped.iter().map(|job| (job.org, job.queue)).collect();
        for (org, queue) in affected_queues {
            tx.emit(Event::jobs_ready(org, queue));
            tx.emit(Event::jobs_changed(org));
        }
        tx.commit().await?;
        for job in reaped {
            let (id, kind) = (job.id, &job.kind);
            metrics::counter!("sentryops_jobs_crashed_total", "queue" => job.queue.as_str())
                .increment(1);
            if job.is_buried {
                tracing::error!(job.id = %id, job.kind = kind, "job {id} is buried (dead-lettered): its lease expired, and no attempt is left");
            } else {
                tracing::warn!(job.id = %id, job.kind = kind, "the lease of job {id} expired: the job runs again unless it was cancelled or superseded by a newer job with the same key");
            }
        }
        Ok(())
    }

    async fn clean_up(&self) -> domain::Result<()> {
        let tx = self.db.fleet().await?;
        // Creates the partitions of the coming days and months, and drops the partitions past the retention.
        history::rotate(&tx, self.retention.history_days).await?;
        AuditEntry::rotate(&tx, self.retention.audit_days).await?;
        Worker::delete_stale(&tx).await?;
        tx.commit().await
    }
}
