//! One process of the fleet: an apalis worker for each queue, leases on a thread of their own, and an end in good order.
//!
//! On stop nothing new is claimed and what was claimed but not started goes back at once, without costing an attempt;
//! what runs has `drain` to finish, then it is stopped and goes back too. A job that cannot be stopped ends the process:
//! the lease thread sees to that even when every other thread is held up by such jobs.

use std::{sync::Arc, time::Duration};

use apalis::{
    layers::WorkerBuilderExt,
    prelude::{WorkerBuilder, WorkerError},
};
use domain::{
    Db,
    fleet::worker::{NewWorker, Worker},
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
    maintenance::{Duties, Maintenance},
};

mod renewer;
pub(crate) mod schedule;
mod settings;

pub use renewer::EXIT_STUCK;
use renewer::LeaseRenewer;
pub use settings::{QueueSettings, Settings};

/// How long others may go on beside a job that cannot be stopped: nobody takes jobs here meanwhile.
const STUCK_DRAIN: Duration = Duration::from_secs(5);
/// How long telling the last endings may take.
const TELLING: Duration = Duration::from_secs(5);

/// Why a fleet ended although nobody asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A job does not stop: the process has to end, and to be started again by whoever looks after it.
    #[error("a job does not stop although its time is up: this process has to end")]
    Stuck,
    /// The leases cannot be kept.
    #[error("the leases of jobs cannot be kept: no connection of their own")]
    Leases(#[source] domain::Error),
    /// A part of the fleet ended early; its panic is in the log.
    #[error("{0} jobs ended early: this process cannot go on")]
    Ended(&'static str),
    /// There is no thread for the leases.
    #[error("the thread that keeps the leases could not be started")]
    Thread(#[source] std::io::Error),
    /// A queue's worker ended.
    #[error("the worker of a queue ended early")]
    Worker(#[source] Option<WorkerError>),
}

/// One process of the fleet.
pub struct Fleet {
    db: Db,
    listener: Listener,
    handlers: Arc<Handlers>,
    duties: Arc<Duties>,
    clock: Clock,
    settings: Settings,
}

impl Fleet {
    /// A process that does these jobs, and these duties besides.
    pub fn new(
        db: Db,
        listener: Listener,
        handlers: Handlers,
        duties: Duties,
        clock: Clock,
        settings: Settings,
    ) -> Self {
        Self {
            db,
            listener,
            handlers: Arc::new(handlers),
            duties: Arc::new(duties),
            clock,
            settings,
        }
    }

    /// Works until it is told to stop, then ends in good order.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        let me = self.new_worker();
        let registry = ClaimRegistry::default();
        let (stuck, kept, gone) =
            (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        // Ends the lease thread also where this future is dropped.
        let _kept = kept.clone().drop_guard();
        let renewer = LeaseRenewer {
            registry: registry.clone(),
            db: self.db.with_own_pool(1).map_err(Error::Leases)?,
            config: self.settings.leases,
            stop: kept.clone(),
            stuck: stuck.clone(),
            gone: gone.clone(),
            last_resort: STUCK_DRAIN + 2 * TELLING,
        };
        let renewer = renewer.start().map_err(Error::Thread)?;

        let draining = CancellationToken::new();
        let (mut queues, mut fetching, mut acknowledging) =
            (JoinSet::new(), JoinSet::new(), JoinSet::new());
        for (queue, settings) in &self.settings.queues {
            let settings = backend::Settings {
                worker: me.id,
                queue: *queue,
                kinds: self.handlers.kinds(*queue),
                concurrency: settings.concurrency,
                prefetch: settings.prefetch,
                lease: self.settings.leases.lease,
            };
            let (backend, running) =
                PostgresBackend::new(&self.db, &registry, settings, draining.clone());
            self.listener.wake(*queue, running.wake);
            fetching.spawn(running.fetching);
            acknowledging.spawn(running.acknowledging);
            queues.spawn(self.work_on(backend, draining.clone()));
        }
        let mut maintenance =
            tokio::spawn(self.maintenance(&me, &registry, &draining, &kept).run());
        tracing::info!(worker.id = %me.id, worker.capacity = me.capacity, "taking jobs");

        let ended = tokio::select! {
            () = stop.cancelled() => Ok(()),
            () = stuck.cancelled() => Err(Error::Stuck),
            Some(ended) = queues.join_next() => {
                Err(ended.unwrap_or(Ok(())).err().unwrap_or(Error::Worker(None)))
            }
            Some(_) = fetching.join_next() => Err(Error::Ended("claiming")),
            Some(_) = acknowledging.join_next() => Err(Error::Ended("acknowledging")),
            _ = &mut maintenance => Err(Error::Ended("tending")),
            () = gone.cancelled() => Err(Error::Ended("renewing")),
        };
        draining.cancel();
        // A claim that is under way is noted before anything is waited for.
        let claimed = async { while fetching.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(TELLING, claimed).await;
        let time = if ended.is_ok() { self.settings.drain } else { STUCK_DRAIN };
        drain(&registry, &mut queues, time).await;
        kept.cancel();
        // What it was at is rolled back.
        maintenance.abort();
        self.leave(me.id).await;
        acknowledging.abort_all();
        // The thread waits for nothing but its own statement.
        let _ = tokio::task::spawn_blocking(move || renewer.join()).await;
        ended
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
        me: &NewWorker,
        registry: &ClaimRegistry,
        draining: &CancellationToken,
        stop: &CancellationToken,
    ) -> Maintenance {
        Maintenance {
            db: self.db.clone(),
            me: me.clone(),
            registry: registry.clone(),
            duties: Arc::clone(&self.duties),
            history_days: self.settings.history_days,
            every: self.settings.maintenance_interval,
            draining: draining.clone(),
            stop: stop.clone(),
        }
    }

    /// One queue's apalis worker: so many at a time.
    fn work_on(
        &self,
        backend: PostgresBackend,
        stop: CancellationToken,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        let dispatcher = Dispatcher {
            db: self.db.clone(),
            handlers: Arc::clone(&self.handlers),
            clock: Arc::clone(&self.clock),
        };
        let settings = backend.settings().clone();
        let worker = WorkerBuilder::new(settings.queue.as_str())
            .backend(backend)
            .concurrency(settings.concurrency)
            .build(move |job: ClaimedJob| dispatcher.clone().run(job));
        async move {
            let signal = stop.cancelled_owned().map(Ok::<(), WorkerError>);
            worker.run_until(signal).await.map_err(|error| Error::Worker(Some(error)))
        }
    }

    async fn leave(&self, id: Uuid) {
        let left = async {
            let tx = self.db.fleet().await?;
            Worker::leave(&tx, id).await?;
            tx.commit().await
        };
        // Whoever is silent is forgotten in any case.
        let _ = tokio::time::timeout(TELLING, left).await;
    }
}

/// Lets running jobs finish, then stops them, then waits until all is told.
async fn drain(registry: &ClaimRegistry, queues: &mut JoinSet<Result<(), Error>>, drain: Duration) {
    let ended = async {
        while queues.join_next().await.is_some() {}
        // A suspect takes no place, so its queue does not wait until it is told of.
        while registry.count() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::pin!(ended);
    if tokio::time::timeout(drain, &mut ended).await.is_ok() {
        return;
    }
    let jobs = registry.count();
    tracing::warn!(jobs, "stopping jobs that were not done in time: they run again elsewhere");
    registry.stop_all(Stop::Shutdown);
    if tokio::time::timeout(TELLING, ended).await.is_err() {
        let jobs = registry.count();
        tracing::error!(jobs, "some jobs could not be given back: their leases end by themselves");
    }
}
