//! Our queue as a backend of apalis: its workers poll here for tasks, and the layer here tells how each ended.
//!
//! Directly over the `Backend` traits of apalis-core: its helpers for persistent backends, and the published backends
//! over them, run jobs twice on healthy workers and lose or loop them after a crash. Errors of the database never reach
//! apalis, which would end the worker: the fetcher and the acknowledger deal with them.

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

/// One queue of one worker process.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The worker process, of this boot.
    pub worker: Uuid,
    /// The queue.
    pub queue: Queue,
    /// The kinds it knows, with their versions.
    pub kinds: Vec<(String, i16)>,
    /// How many jobs run at a time.
    pub concurrency: usize,
    /// How many are claimed ahead: none for long jobs, hundreds for short ones.
    pub prefetch: usize,
    /// How long a claim lasts unless renewed.
    pub lease: Duration,
}

/// Jobs of one queue in Postgres, for an apalis worker.
pub struct PostgresBackend {
    settings: Settings,
    buffer: Arc<Buffer>,
    layer: AckLayer,
    slots: Arc<Semaphore>,
    closing: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// What runs beside a backend.
pub struct Running {
    /// Wakes the fetcher: there may be work.
    pub wake: Arc<Notify>,
    /// Fetching, to be spawned; over once the queue is stopped and what was not started is on its way back.
    pub fetching: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Acknowledging, to be spawned; never over while the queue is worked on.
    pub acknowledging: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl PostgresBackend {
    /// The backend, and what runs beside it until `stop`.
    pub fn new(
        db: &Db,
        registry: &ClaimRegistry,
        settings: Settings,
        stop: CancellationToken,
    ) -> (Self, Running) {
        // A place is free again once its job has been written of, so some are needed beyond those who run.
        let total = settings.concurrency + settings.prefetch + settings.concurrency.div_ceil(4);
        let slots = Arc::new(Semaphore::new(total));
        let (wake, buffer) = (Arc::new(Notify::new()), Arc::new(Buffer::default()));
        let suspect = Arc::new(AtomicBool::new(false));
        let writer = AckWriter {
            db: db.clone(),
            queue: settings.queue,
            registry: registry.clone(),
            slots: Arc::clone(&slots),
            wake: Arc::clone(&wake),
        };
        let (acknowledger, acknowledging) = Acknowledger::new(writer);
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
            suspect: Arc::clone(&suspect),
            acknowledger: acknowledger.clone(),
            stop,
        };
        let layer = AckLayer { acknowledger, suspect, wake: Arc::clone(&wake) };
        let everything = all_slots_free(Arc::clone(&slots), total);
        let backend = Self { settings, buffer, layer, slots, closing: Some(everything) };
        (
            backend,
            Running {
                wake,
                fetching: Box::pin(fetcher.run()),
                acknowledging: Box::pin(acknowledging),
            },
        )
    }

    /// How it works.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }
}

/// Resolves when every claim has been written of.
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

/// Never: what goes wrong with the database is dealt with beside the backend.
#[derive(Debug, thiserror::Error)]
pub enum Never {}

impl Backend for PostgresBackend {
    type Task = Task<ClaimedJob>;
    type Error = Never;

    fn poll_ready(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Never>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
        _: &WorkerContext,
    ) -> Poll<Option<Result<Task<ClaimedJob>, Never>>> {
        let Some(job) = self.buffer.pop(context) else { return Poll::Pending };
        // apalis counts this start itself.
        let before = usize::from(job.claimed.attempt.unsigned_abs()).saturating_sub(1);
        let id = TaskId::from_string(job.claimed.lease.id.to_string());
        Poll::Ready(Some(Ok(TaskBuilder::new(job).attempt(before).task_id(id).build())))
    }

    fn poll_close(
        &mut self,
        context: &mut Context<'_>,
        _: &WorkerContext,
    ) -> Poll<Result<(), Never>> {
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

/// The outermost layer: hears how each job ended.
#[derive(Debug, Clone)]
pub struct AckLayer {
    acknowledger: Acknowledger,
    suspect: Arc<AtomicBool>,
    wake: Arc<Notify>,
}

impl<S> Layer<S> for AckLayer {
    type Service = Ack<S>;

    fn layer(&self, inner: S) -> Ack<S> {
        Ack { inner, layer: self.clone() }
    }
}

/// See [`AckLayer`].
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
        let (attempt, limit) = (task.args.claimed.attempt, task.args.claimed.max_attempts);
        let is_suspect = task.args.claimed.is_suspect;
        let layer = self.layer.clone();
        let handled = self.inner.call(task);
        Box::pin(async move {
            let outcome = match handled.await {
                Ok(()) if claim.state().is_finished() => Outcome::AlreadySettled,
                Ok(()) => Outcome::Done,
                Err(error) => outcome(error.into(), attempt, limit),
            };
            if is_suspect {
                layer.suspect.store(false, Ordering::Release);
                layer.wake.notify_one();
            }
            layer.acknowledger.end(claim, outcome);
            Ok(())
        })
    }
}

/// What a handler's service fails with.
#[derive(Debug, thiserror::Error)]
pub enum Interruption {
    /// The handler failed.
    #[error("the job failed")]
    Failed(Failure),
    /// It was stopped before it was done.
    #[error("the job was stopped")]
    Stopped(Stop),
}

fn outcome(error: BoxDynError, attempt: i16, limit: i16) -> Outcome {
    // Also where the handler had ended the job in its own transaction: whether that came through, only the row can write;
    // the fence refuses what comes too late.
    let failure = match error.downcast::<Interruption>().map(|interruption| *interruption) {
        Ok(Interruption::Failed(failure)) => failure,
        Ok(Interruption::Stopped(Stop::Lost)) => return Outcome::AlreadySettled,
        // If somebody has it by now, the fence says so.
        Ok(Interruption::Stopped(Stop::Unrenewed | Stop::Shutdown)) => {
            return Outcome::Failed(Disposition::Release);
        }
        Ok(Interruption::Stopped(Stop::Cancelled)) => {
            return Outcome::Failed(Disposition::Cancel {
                reason: "cancelled while it ran".to_owned(),
            });
        }
        // Of a layer in between.
        Err(error) => Failure::retry(error.to_string()),
    };
    Outcome::Failed(match failure {
        Failure::Retry { reason, .. } if attempt >= limit => Disposition::Bury { reason },
        Failure::Retry { reason, after } => {
            Disposition::Retry { reason, after: backoff(attempt, unit(), after) }
        }
        Failure::Abort { reason } => Disposition::Bury { reason },
        Failure::Snooze { reason, after } => Disposition::Snooze { reason, after },
        Failure::Denied { reason } => Disposition::Cancel { reason },
    })
}

/// Uniform in 0..1; without randomness the middle, which only makes retries come together.
fn unit() -> f64 {
    getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX))
}
