//! Backend for apalis. A consumer (apalis calls it a worker) polls the jobs of one queue from [`PostgresBackend`], and
//! [`AckLayer`] acknowledges each job when its handler has returned.
//!
//! The backend implements the `Backend` traits of apalis-core directly. The helpers of apalis-core for persistent
//! backends, and the published backends that use them, run jobs twice on healthy workers. After a crash, they lose jobs
//! or run them endlessly. Database errors never reach apalis, because an error would end the consumer. The fetcher and
//! the acknowledger retry instead.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use apalis_core::{
    backend::{Backend, BackendConfig, finalize::Ephemeral},
    error::BoxDynError,
    task::{Task, builder::TaskBuilder, task_id::TaskId},
    worker::context::WorkerContext,
};
use domain::{Db, fleet::job::Queue};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tower_layer::Layer;
use tower_service::Service;
use uuid::Uuid;

use crate::queue::{
    claim::Claimant,
    claims::{ClaimRegistry, Stop},
    completion::{AckWriter, Acknowledger, Outcome},
    failure::Failure,
    fetcher::{Buffer, ClaimedJob, Fetcher},
    lease::Disposition,
    retry::backoff,
};

/// Settings of one queue in one worker process.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Id of the worker process, new at each start.
    pub worker: Uuid,
    /// Queue from which jobs are claimed.
    pub queue: Queue,
    /// Job kinds that the process can handle, with their payload versions.
    pub kinds: Vec<(String, i16)>,
    /// Maximum number of jobs that run at the same time.
    pub concurrency: usize,
    /// Number of jobs that are claimed before a handler is free: 0 for long jobs, hundreds for short ones.
    pub prefetch: usize,
    /// Time after which a claim expires unless it is renewed.
    pub lease: Duration,
}

/// Backend for an apalis worker: the jobs of one queue in Postgres.
pub struct PostgresBackend {
    settings: Settings,
    buffer: Arc<Buffer>,
    layer: AckLayer,
    slots: Arc<Semaphore>,
    closing: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// Futures of a backend, which must be spawned, and the flag that wakes its fetcher.
pub struct BackendTasks {
    /// Wake flag of the fetcher, to be raised when jobs may be ready.
    pub wake: Arc<Notify>,
    /// Future of the fetcher. It completes after `stop` is cancelled and the jobs that no handler has started have been
    /// queued for release.
    pub fetch_loop: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Future of the acknowledger. It completes only when the backend, its layers and the fetcher have been dropped.
    pub ack_loop: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl PostgresBackend {
    /// Creates a backend, and the futures that must run beside it until `stop` is cancelled.
    pub fn new(
        db: &Db,
        registry: &ClaimRegistry,
        settings: Settings,
        stop: CancellationToken,
    ) -> (Self, BackendTasks) {
        // A slot (a permit for one claim) is free again only when the outcome of its job has been written. So there are
        // more slots than running and prefetched jobs: handlers need not wait for acknowledgements.
        let total = settings.concurrency + settings.prefetch + settings.concurrency.div_ceil(4);
        let slots = Arc::new(Semaphore::new(total));
        let (wake, buffer) = (Arc::new(Notify::new()), Arc::new(Buffer::default()));
        let has_suspect = Arc::new(AtomicBool::new(false));
        let writer = AckWriter {
            db: db.clone(),
            queue: settings.queue,
            registry: registry.clone(),
            slots: Arc::clone(&slots),
            wake: Arc::clone(&wake),
        };
        let (acknowledger, ack_loop) = Acknowledger::new(writer);
        let (kinds, versions) = settings.kinds.iter().cloned().unzip();
        let fetcher = Fetcher {
            db: db.clone(),
            claimant: Claimant {
                worker: settings.worker,
                queue: settings.queue,
                kinds,
                versions,
                lease: settings.lease,
            },
            registry: registry.clone(),
            slots: Arc::clone(&slots),
            min_free: (settings.prefetch / 4).max(1),
            buffer: Arc::clone(&buffer),
            wake: Arc::clone(&wake),
            has_suspect: Arc::clone(&has_suspect),
            acknowledger: acknowledger.clone(),
            stop,
        };
        let layer = AckLayer { acknowledger, has_suspect, wake: Arc::clone(&wake) };
        let all_free = all_slots_free(Arc::clone(&slots), total);
        let backend = Self { settings, buffer, layer, slots, closing: Some(all_free) };
        (
            backend,
            BackendTasks {
                wake,
                fetch_loop: Box::pin(fetcher.run()),
                ack_loop: Box::pin(ack_loop),
            },
        )
    }

    /// Returns the settings of the backend.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }
}

/// Waits until all slots are free, i.e. until the outcomes of all claims have been written.
fn all_slots_free(slots: Arc<Semaphore>, total: usize) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        let total = u32::try_from(total).unwrap_or(u32::MAX);
        drop(slots.acquire_many(total).await);
    })
}

impl std::fmt::Debug for PostgresBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresBackend")
            .field("settings", &self.settings)
            .field("free", &self.slots.available_permits())
            .finish_non_exhaustive()
    }
}

/// Error type without a value, because the fetcher and the acknowledger handle all database errors.
#[derive(Debug, thiserror::Error)]
pub enum NoError {}

impl Backend for PostgresBackend {
    type Task = Task<ClaimedJob>;
    type Error = NoError;

    fn poll_ready(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), NoError>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
        _: &WorkerContext,
    ) -> Poll<Option<Result<Task<ClaimedJob>, NoError>>> {
        let Some(job) = self.buffer.pop(context) else { return Poll::Pending };
        // apalis counts the current attempt itself.
        let earlier_attempts = usize::from(job.row.attempt.unsigned_abs()).saturating_sub(1);
        let id = TaskId::from_string(job.row.lease.id.to_string());
        Poll::Ready(Some(Ok(TaskBuilder::new(job).attempt(earlier_attempts).task_id(id).build())))
    }

    fn poll_close(
        &mut self,
        context: &mut Context<'_>,
        _: &WorkerContext,
    ) -> Poll<Result<(), NoError>> {
        let Some(closing) = &mut self.closing else { return Poll::Ready(Ok(())) };
        std::task::ready!(closing.as_mut().poll(context));
        self.closing = None;
        Poll::Ready(Ok(()))
    }
}

impl BackendConfig for PostgresBackend {
    type Args = ClaimedJob;
    type Id = Uuid;
    type Kind = Ephemeral;
    type Config = Settings;
    type Layer = AckLayer;

    fn config(&self) -> &Settings {
        &self.settings
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> AckLayer {
        self.layer.clone()
    }
}

/// Outermost layer around a handler. It acknowledges each job when the handler has returned.
#[derive(Debug, Clone)]
pub struct AckLayer {
    acknowledger: Acknowledger,
    has_suspect: Arc<AtomicBool>,
    wake: Arc<Notify>,
}

impl<S> Layer<S> for AckLayer {
    type Service = Ack<S>;

    fn layer(&self, inner: S) -> Ack<S> {
        Ack { inner, layer: self.clone() }
    }
}

/// Service of [`AckLayer`] around the service of a handler.
#[derive(Debug, Clone)]
pub struct Ack<S> {
    inner: S,
    layer: AckLayer,
}

impl<S> Service<Task<ClaimedJob>> for Ack<S>
where
    S: Service<Task<ClaimedJob>, Response = (), Error: Into<BoxDynError>, Future: Send + 'static>,
{
    type Response = ();
    type Error = BoxDynError;
    type Future = Pin<Box<dyn Future<Output = Result<(), BoxDynError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxDynError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, task: Task<ClaimedJob>) -> Self::Future {
        let claim = Arc::clone(&task.args.claim);
        let (attempt, limit) = (task.args.row.attempt, task.args.row.max_attempts);
        let is_suspect = task.args.row.is_suspect;
        let layer = self.layer.clone();
        let handler_future = self.inner.call(task);
        Box::pin(async move {
            let outcome = match handler_future.await {
                Ok(()) if claim.state().is_finished() => Outcome::NothingToWrite,
                Ok(()) => Outcome::Succeeded,
                Err(error) => outcome(error.into(), attempt, limit),
            };
            if is_suspect {
                layer.has_suspect.store(false, Ordering::Release);
                layer.wake.notify_one();
            }
            layer.acknowledger.submit(claim, outcome);
            Ok(())
        })
    }
}

/// Error of a handler's service: the reason why the attempt did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Interruption {
    /// The handler returned a failure.
    #[error("the job failed")]
    Failed(Failure),
    /// The handler was stopped before it returned.
    #[error("the job was stopped")]
    Stopped(Stop),
}

fn outcome(error: BoxDynError, attempt: i16, limit: i16) -> Outcome {
    // A failure is written even if the handler has called `Claim::complete`: only the job's row shows whether that
    // transaction was committed. If it was, the row is gone, and the outcome changes nothing.
    let failure = match error.downcast::<Interruption>().map(|interruption| *interruption) {
        Ok(Interruption::Failed(failure)) => failure,
        Ok(Interruption::Stopped(Stop::Lost)) => return Outcome::NothingToWrite,
        // If another worker has claimed the job by now, the fencing token differs, and the release changes nothing.
        Ok(Interruption::Stopped(Stop::Unrenewed | Stop::Shutdown)) => {
            return Outcome::Unfinished(Disposition::Release);
        }
        Ok(Interruption::Stopped(Stop::Cancelled)) => {
            return Outcome::Unfinished(Disposition::Cancel {
                reason: "cancelled while the job was running".to_owned(),
            });
        }
        // An error from a layer between the handler and this one.
        Err(error) => Failure::retry(error.to_string()),
    };
    Outcome::Unfinished(match failure {
        Failure::Retry { reason, .. } if attempt >= limit => Disposition::Bury { reason },
        Failure::Retry { reason, after } => {
            Disposition::Retry { reason, after: backoff(attempt, random_fraction(), after) }
        }
        Failure::Abort { reason } => Disposition::Bury { reason },
        Failure::Snooze { reason, after } => Disposition::Snooze { reason, after },
        Failure::Denied { reason } => Disposition::Cancel { reason },
    })
}

/// Returns a random number, uniform in 0..1. If the system provides no randomness, returns 0.5: retries then coincide
/// more often.
fn random_fraction() -> f64 {
    getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX))
}
