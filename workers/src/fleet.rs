//! One worker process: a consumer per queue, lease renewal on a separate thread, periodic tasks, and a graceful
//! shutdown. A consumer runs the handlers of one queue; apalis calls it a worker. In this crate, a worker is the whole
//! process. A claim is the right of a process to run one job. A lease is the time at which a claim expires; the lease
//! renewal thread extends the leases while their jobs run.
//!
//! On shutdown, the process makes no new claims. Jobs that were claimed but not started are released immediately,
//! without using up an attempt. Running jobs may finish within the drain timeout. Jobs that have not finished by then
//! are stopped and released, also without using up an attempt.
//!
//! A job that has not stopped after its time limit and the grace period (10 s by default) is stuck, and the process
//! must exit. The other jobs are drained for [`ERROR_DRAIN_TIMEOUT`], and [`WorkerProcess::run`] returns
//! [`Error::Stuck`]. If stuck jobs block all runtime threads, `run` cannot return; the lease renewal thread then exits
//! the process.

use std::{sync::Arc, time::Duration};

use apalis::{
    layers::WorkerBuilderExt,
    prelude::{WorkerBuilder, WorkerError},
};
use domain::{
    Db,
    fleet::{
        job::Queue,
        worker::{NewWorker, Worker},
    },
};
use futures_util::FutureExt;
use jobs::{
    ClaimedJob,
    event::Listener,
    queue::{
        backend::{self, PostgresBackend},
        claims::{ClaimRegistry, Stop},
    },
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    context::Clock,
    dispatch::Dispatcher,
    handler::Handlers,
    maintenance::{Maintenance, PeriodicTasks},
};

mod renewer;
pub(crate) mod schedule;
mod settings;

pub use renewer::EXIT_STUCK;
use renewer::LeaseRenewer;
pub use settings::{QueueSettings, Settings};

/// Drain timeout after every [`Error`] of a running process. Used instead of `Settings::drain_timeout`, because the
/// process should exit soon, so that its supervisor restarts it. The process claims no new jobs during this time.
const ERROR_DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout of each step of the shutdown that waits for the database.
const SHUTDOWN_STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// Reason why a worker process exits although no shutdown was requested.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A handler has not stopped after its time limit and the grace period. The process must exit, and its supervisor
    /// must restart it.
    #[error(
        "a job has not stopped after its time limit and grace period: this process must exit and be restarted"
    )]
    Stuck,
    /// The connection pool of the lease renewal could not be created.
    #[error("cannot create the connection pool for lease renewal")]
    RenewalPool(#[source] domain::Error),
    /// A task of the process exited unexpectedly. If the task panicked, the panic is in the log.
    #[error(
        "the task for {0} exited unexpectedly: this process must be restarted; see earlier log lines of this process"
    )]
    TaskExited(&'static str),
    /// The lease renewal thread could not be started.
    #[error("cannot start the lease renewal thread")]
    RenewalThread(#[source] std::io::Error),
    /// The consumer of a queue exited unexpectedly, without a panic.
    #[error("the consumer of the queue {} exited unexpectedly: this process must be restarted", .queue.as_str())]
    ConsumerExited {
        /// Queue whose jobs the consumer ran.
        queue: Queue,
        /// Error that the consumer returned; `None` if it returned no error.
        source: Option<WorkerError>,
    },
}

/// Queue of a consumer that exited, and the result that the consumer returned.
type ConsumerResult = (Queue, Result<(), WorkerError>);

/// Worker process: claims jobs, runs their handlers, and runs periodic tasks.
pub struct WorkerProcess {
    db: Db,
    listener: Listener,
    handlers: Arc<Handlers>,
    periodic_tasks: Arc<PeriodicTasks>,
    clock: Clock,
    settings: Settings,
}

impl WorkerProcess {
    /// Creates a worker process. `handlers` run its jobs, and `periodic_tasks` run independently of jobs.
    pub fn new(
        db: Db,
        listener: Listener,
        handlers: Handlers,
        periodic_tasks: PeriodicTasks,
        clock: Clock,
        settings: Settings,
    ) -> Self {
        Self {
            db,
            listener,
            handlers: Arc::new(handlers),
            periodic_tasks: Arc::new(periodic_tasks),
            clock,
            settings,
        }
    }

    /// Claims and runs jobs until `stop` is cancelled, then shuts down gracefully.
    ///
    /// # Errors
    /// [`Error`] if the process must exit although `stop` was not cancelled.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        let this_worker = self.new_worker();
        let registry = ClaimRegistry::default();
        let (stuck, drained, renewer_exited) =
            (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        // Stop the lease renewal thread even if this future is dropped.
        let _cancel_on_drop = drained.clone().drop_guard();
        let renewer = LeaseRenewer {
            registry: registry.clone(),
            db: self.db.with_own_pool(1).map_err(Error::RenewalPool)?,
            config: self.settings.leases,
            stop: drained.clone(),
            stuck: stuck.clone(),
            renewer_exited: renewer_exited.clone(),
            // Three waits precede the cancellation of `drained`: for the claim loops (one step), for the running jobs
            // (the drain), and for the release of the jobs that were stopped (one step).
            forced_exit_delay: ERROR_DRAIN_TIMEOUT + 2 * SHUTDOWN_STEP_TIMEOUT,
        };
        let renewer = renewer.start().map_err(Error::RenewalThread)?;

        let draining = CancellationToken::new();
        let (mut consumers, mut claim_loops, mut ack_loops) =
            (JoinSet::new(), JoinSet::new(), JoinSet::new());
        for (queue, queue_settings) in &self.settings.queues {
            let backend_settings = backend::Settings {
                worker: this_worker.id,
                queue: *queue,
                kinds: self.handlers.kinds(*queue),
                concurrency: queue_settings.concurrency,
                prefetch: queue_settings.prefetch,
                lease: self.settings.leases.lease,
            };
            let (backend, tasks) =
                PostgresBackend::new(&self.db, &registry, backend_settings, draining.clone());
            self.listener.register_fetcher(*queue, tasks.wake);
            claim_loops.spawn(tasks.fetch_loop);
            ack_loops.spawn(tasks.ack_loop);
            consumers.spawn(self.run_consumer(backend, draining.clone()));
        }
        let mut maintenance =
            tokio::spawn(self.maintenance(&this_worker, &registry, &draining, &drained).run());
        tracing::info!(worker.id = %this_worker.id, worker.capacity = this_worker.capacity, "worker process started: claiming jobs");

        let exit_reason = tokio::select! {
            () = stop.cancelled() => Ok(()),
            () = stuck.cancelled() => Err(Error::Stuck),
            Some(consumer_result) = consumers.join_next() => Err(match consumer_result {
                Ok((queue, result)) => Error::ConsumerExited { queue, source: result.err() },
                Err(_panic) => Error::TaskExited("running jobs"),
            }),
            Some(_) = claim_loops.join_next() => Err(Error::TaskExited("claiming jobs")),
            Some(_) = ack_loops.join_next() => Err(Error::TaskExited("acknowledging jobs")),
            _ = &mut maintenance => Err(Error::TaskExited("maintenance")),
            () = renewer_exited.cancelled() => Err(Error::TaskExited("renewing leases")),
        };
        draining.cancel();
        // A claim query may still be running. Wait until its claims are in the registry; otherwise the drain misses
        // them.
        let claim_loops_ended = async { while claim_loops.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(SHUTDOWN_STEP_TIMEOUT, claim_loops_ended).await;
        let drain_timeout =
            if exit_reason.is_ok() { self.settings.drain_timeout } else { ERROR_DRAIN_TIMEOUT };
        drain_jobs(&registry, &mut consumers, drain_timeout).await;
        drained.cancel();
        // Aborting the maintenance task rolls back its open transaction, if there is one.
        maintenance.abort();
        self.deregister(this_worker.id).await;
        ack_loops.abort_all();
        // The lease renewal thread ends after its current statement.
        let _ = tokio::task::spawn_blocking(move || renewer.join()).await;
        exit_reason
    }

    fn new_worker(&self) -> NewWorker {
        let capacity: usize = self.settings.queues.iter().map(|(_, queue)| queue.concurrency).sum();
        NewWorker {
            id: Uuid::now_v7(),
            host: self.settings.host.clone(),
            version: self.settings.version.clone(),
            queues: self.settings.queues.iter().map(|(queue, _)| *queue).collect(),
            capacity: i32::try_from(capacity).unwrap_or(i32::MAX),
        }
    }

    fn maintenance(
        &self,
        this_worker: &NewWorker,
        registry: &ClaimRegistry,
        draining: &CancellationToken,
        stop: &CancellationToken,
    ) -> Maintenance {
        Maintenance {
            db: self.db.clone(),
            this_worker: this_worker.clone(),
            registry: registry.clone(),
            periodic_tasks: Arc::clone(&self.periodic_tasks),
            retention: self.settings.retention,
            interval: self.settings.maintenance_interval,
            draining: draining.clone(),
            stop: stop.clone(),
        }
    }

    /// Returns a future that runs the consumer of one queue, up to its limit of concurrent jobs, until `stop` is
    /// cancelled.
    fn run_consumer(
        &self,
        backend: PostgresBackend,
        stop: CancellationToken,
    ) -> impl Future<Output = ConsumerResult> + Send + 'static {
        let dispatcher = Dispatcher {
            db: self.db.clone(),
            handlers: Arc::clone(&self.handlers),
            clock: Arc::clone(&self.clock),
        };
        let settings = backend.settings().clone();
        let consumer = WorkerBuilder::new(settings.queue.as_str())
            .backend(backend)
            .concurrency(settings.concurrency)
            .build(move |job: ClaimedJob| dispatcher.clone().run(job));
        async move {
            let signal = stop.cancelled_owned().map(Ok::<(), WorkerError>);
            (settings.queue, consumer.run_until(signal).await)
        }
    }

    async fn deregister(&self, id: Uuid) {
        let deregistration = async {
            let tx = self.db.fleet().await?;
            Worker::deregister(&tx, id).await?;
            tx.commit().await
        };
        // If deregistration fails, the worker's row is deleted after an hour without a heartbeat.
        let _ = tokio::time::timeout(SHUTDOWN_STEP_TIMEOUT, deregistration).await;
    }
}

/// Waits up to `timeout` for running jobs. Then stops the remaining jobs and waits until their outcomes have been
/// written.
async fn drain_jobs(
    registry: &ClaimRegistry,
    consumers: &mut JoinSet<ConsumerResult>,
    timeout: Duration,
) {
    let ended = async {
        while consumers.join_next().await.is_some() {}
        // A slot is a permit for one claim of a queue; a consumer ends only when all slots of its queue are free. A
        // suspect (a job whose worker died while the job ran, and that has few attempts left) occupies no slot, because
        // it is claimed in addition to the other jobs. So wait until the registry is empty as well.
        while registry.count() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::pin!(ended);
    if tokio::time::timeout(timeout, &mut ended).await.is_ok() {
        return;
    }
    let jobs = registry.count();
    tracing::warn!(
        jobs,
        "the drain timeout has passed: stopping {jobs} jobs; other workers will run them again"
    );
    registry.stop_all(Stop::Shutdown);
    if tokio::time::timeout(SHUTDOWN_STEP_TIMEOUT, ended).await.is_err() {
        let jobs = registry.count();
        tracing::error!(
            jobs,
            "could not release {jobs} jobs during shutdown: they run again after their leases expire"
        );
    }
}
