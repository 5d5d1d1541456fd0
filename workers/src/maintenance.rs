//! Maintenance: what every process does besides jobs. It says that it is there, takes back lost leases, keeps the history's
//! partitions, and does the duties of the wings, which it does not know: [`Duties`] lists them.
//!
//! All of it is safe to do twice at once; rows that somebody else is at are skipped.

use std::{
    collections::HashSet,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use domain::{
    Db,
    base::event::Event,
    fleet::worker::{NewWorker, Worker},
};
use jobs::queue::{claims::ClaimRegistry, history, lease};
use tokio_util::sync::CancellationToken;

/// How often a worker says that it is there.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How often old history and silent workers are looked for.
pub(crate) const TIDY: Duration = Duration::from_mins(10);
/// After an outage of the database everybody renews what they hold before anything is taken back.
const OUTAGE_GRACE: Duration = Duration::from_secs(5);

/// The means of a duty.
#[derive(Debug, Clone)]
pub struct Round {
    /// The database.
    pub db: Db,
    /// Days for which it is kept what became of jobs.
    pub history_days: u16,
}

type Done = Pin<Box<dyn Future<Output = domain::Result<()>> + Send>>;

/// A duty of a wing.
struct Duty {
    /// Completes the sentence "could not … this time".
    name: &'static str,
    every: Duration,
    run: Box<dyn Fn(Round) -> Done + Send + Sync>,
}

/// Duties of the wings, in the order in which they are done.
#[derive(Default)]
pub struct Duties(Vec<Duty>);

impl Duties {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A duty of each round. The name completes the sentence "could not … this time".
    #[must_use]
    pub fn each_round<F, Fut>(self, name: &'static str, duty: F) -> Self
    where
        F: Fn(Round) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = domain::Result<()>> + Send + 'static,
    {
        self.every(Duration::ZERO, name, duty)
    }

    /// A duty of a round now and then: of the first, and of one each time so long has passed.
    #[must_use]
    pub fn every<F, Fut>(mut self, every: Duration, name: &'static str, duty: F) -> Self
    where
        F: Fn(Round) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = domain::Result<()>> + Send + 'static,
    {
        self.0.push(Duty { name, every, run: Box::new(move |round| Box::pin(duty(round))) });
        self
    }
}

/// The maintenance of one process, until it is told to stop.
pub(crate) struct Maintenance {
    pub(crate) db: Db,
    pub(crate) me: NewWorker,
    pub(crate) registry: ClaimRegistry,
    pub(crate) duties: Arc<Duties>,
    pub(crate) history_days: u16,
    pub(crate) every: Duration,
    pub(crate) draining: CancellationToken,
    pub(crate) stop: CancellationToken,
}

/// When what was done last.
struct DoneAt {
    heartbeat: Option<Instant>,
    duties: Vec<Option<Instant>>,
    tidy: Option<Instant>,
}

/// Logs what could not be done; returns whether it could.
fn log_failure(what: &'static str, done: domain::Result<()>) -> bool {
    let Err(error) = done else { return true };
    let error = &error as &dyn std::error::Error;
    tracing::warn!(error, "could not {what} this time");
    false
}

fn is_due(at: Option<Instant>, every: Duration) -> bool {
    at.is_none_or(|at| at.elapsed() >= every)
}

impl Maintenance {
    /// Until told to stop.
    pub(crate) async fn run(self) {
        let mut done_at =
            DoneAt { heartbeat: None, duties: vec![None; self.duties.0.len()], tidy: None };
        let mut reached_at = Instant::now();
        let mut grace_until = None;
        let mut tick = tokio::time::interval(self.every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            if reached_at.elapsed() > OUTAGE_GRACE.max(2 * self.every) {
                grace_until = Some(Instant::now() + OUTAGE_GRACE);
            }
            let is_grace = grace_until.is_some_and(|until| Instant::now() < until);
            if self.tick(&mut done_at, is_grace).await {
                reached_at = Instant::now();
            }
        }
    }

    /// Each by itself: what keeps one from being done must not keep the others. Returns whether the database was reached.
    async fn tick(&self, done_at: &mut DoneAt, is_grace: bool) -> bool {
        let mut is_reached = false;
        if is_due(done_at.heartbeat, HEARTBEAT) {
            is_reached |= log_failure("beat", self.heartbeat().await);
            done_at.heartbeat = Some(Instant::now());
        }
        if !is_grace {
            is_reached |= log_failure("take back jobs of lost workers", self.reap().await);
        }
        for (duty, at) in self.duties.0.iter().zip(&mut done_at.duties) {
            if is_due(*at, duty.every) {
                let round = Round { db: self.db.clone(), history_days: self.history_days };
                is_reached |= log_failure(duty.name, (duty.run)(round).await);
                *at = Some(Instant::now());
            }
        }
        if is_due(done_at.tidy, TIDY) {
            log_failure("tidy the history", self.tidy().await);
            done_at.tidy = Some(Instant::now());
        }
        is_reached
    }

    async fn heartbeat(&self) -> domain::Result<()> {
        let tx = self.db.fleet().await?;
        let running = i32::try_from(self.registry.count()).unwrap_or(i32::MAX);
        if !Worker::beat(&tx, self.me.id, running, self.draining.is_cancelled()).await? {
            Worker::register(&tx, &self.me).await?;
        }
        tx.commit().await
    }

    async fn reap(&self) -> domain::Result<()> {
        let tx = self.db.fleet().await?;
        let reaped = lease::reap(&tx).await?;
        let ready: HashSet<_> = reaped.iter().map(|job| (job.org, job.queue)).collect();
        for (org, queue) in ready {
            tx.emit(Event::ready(org, queue));
            tx.emit(Event::jobs(org));
        }
        tx.commit().await?;
        for job in reaped {
            let (id, kind) = (job.id, &job.kind);
            metrics::counter!("sentryops_jobs_crashed_total", "queue" => job.queue.as_str())
                .increment(1);
            if job.is_buried {
                tracing::error!(job.id = %id, job.kind = kind, "job {id} is buried: its attempts ended with their workers");
            } else {
                tracing::warn!(job.id = %id, job.kind = kind, "job {id} runs again: its worker is gone");
            }
        }
        Ok(())
    }

    async fn tidy(&self) -> domain::Result<()> {
        let tx = self.db.fleet().await?;
        history::rotate(&tx, self.history_days).await?;
        Worker::forget(&tx).await?;
        tx.commit().await
    }
}
