//! What every process does besides jobs: it beats, takes back lost leases, pushes what is due, has changes followed, keeps the history's
//! partitions, and forgets imports that are as old.
//!
//! All of it is safe to do twice at once; rows that somebody else is at are skipped.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use domain::{
    Db,
    base::event::Event,
    fleet::worker::{NewWorker, Worker},
    inventory::import::ImportRun,
};
use jobs::{
    compliance::posture,
    fleet::schedule,
    queue::{claims::ClaimRegistry, history, lease},
};
use tokio_util::sync::CancellationToken;

/// How often a worker says that it is there.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How often changes are looked for that nobody asked to follow.
const FOLLOW: Duration = Duration::from_secs(3);
/// How often old history and silent workers are looked for.
const TIDY: Duration = Duration::from_mins(10);
/// After an outage of the database everybody renews what they hold before anything is taken back.
const OUTAGE_GRACE: Duration = Duration::from_secs(5);

/// The maintenance of one process, until it is told to stop.
pub(crate) struct Maintenance {
    pub(crate) db: Db,
    pub(crate) me: NewWorker,
    pub(crate) registry: ClaimRegistry,
    pub(crate) history_days: u16,
    pub(crate) every: Duration,
    pub(crate) draining: CancellationToken,
    pub(crate) stop: CancellationToken,
}

/// When what was done last.
#[derive(Default)]
struct Done {
    heartbeat: Option<Instant>,
    follow: Option<Instant>,
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
        let mut done = Done::default();
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
            if self.tick(&mut done, is_grace).await {
                reached_at = Instant::now();
            }
        }
    }

    /// Each by itself: what keeps one from being done must not keep the others. Returns whether the database was reached.
    async fn tick(&self, done: &mut Done, is_grace: bool) -> bool {
        let mut is_reached = false;
        if is_due(done.heartbeat, HEARTBEAT) {
            is_reached |= log_failure("beat", self.heartbeat().await);
            done.heartbeat = Some(Instant::now());
        }
        if !is_grace {
            is_reached |= log_failure("take back jobs of lost workers", self.reap().await);
        }
        is_reached |= log_failure("push what is due", self.schedule().await);
        if is_due(done.follow, FOLLOW) {
            is_reached |= log_failure("follow changes of people", self.follow().await);
            done.follow = Some(Instant::now());
        }
        if is_due(done.tidy, TIDY) {
            log_failure("tidy the history", self.tidy().await);
            done.tidy = Some(Instant::now());
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

    /// By Postgres' clock: those of workers need not agree.
    async fn schedule(&self) -> domain::Result<()> {
        let tx = self.db.fleet().await?;
        let now = tx.now().await?;
        schedule::push_due(&tx, now).await?;
        tx.commit().await
    }

    async fn follow(&self) -> domain::Result<()> {
        let tx = self.db.fleet().await?;
        posture::push_forgotten(&tx).await?;
        tx.commit().await
    }

    async fn tidy(&self) -> domain::Result<()> {
        let tx = self.db.fleet().await?;
        history::rotate(&tx, self.history_days).await?;
        Worker::forget(&tx).await?;
        let now = tx.now().await?;
        posture::push_verify(&tx, now).await?;
        tx.commit().await?;
        self.forget_imports().await
    }

    /// A part at a time: an import may have thousands of errors.
    async fn forget_imports(&self) -> domain::Result<()> {
        loop {
            let tx = self.db.fleet().await?;
            let before = tx.now().await? - TimeDelta::days(self.history_days.into());
            let forgotten = ImportRun::forget(&tx, before).await?;
            tx.commit().await?;
            if forgotten == 0 {
                return Ok(());
            }
        }
    }
}
