//! Test bench of all parts: the stores, the ledger, and the processes that push and claim jobs.

use std::{
    cell::{Cell, RefCell},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use uuid::Uuid;

use super::{ledger::Ledger, store::Store};
use crate::{
    child::{self, Child},
    folder::Folder,
    server::Server,
    stores::Stores,
};

/// Timeout for a worker process to register.
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(30);
const POLL_EVERY: Duration = Duration::from_millis(10);
/// Redis URL of a socket that does not exist.
const NO_REDIS: &str = "redis+unix:///nonexistent/redis.sock";

/// Stores, ledger and binaries used by all parts of the queue scenario.
pub(crate) struct QueueBench {
    /// Addresses of Postgres and Redis.
    pub(crate) stores: Stores,
    /// Record of job events in Postgres.
    pub(crate) ledger: Ledger,
    /// Temporary folder for the logs of processes.
    pub(crate) folder: Folder,
    /// Path of the sentryops binary.
    pub(crate) binary: PathBuf,
    /// True for a smoke test with `--quick`.
    pub(crate) is_quick: bool,
    /// Seed of the run's random numbers.
    pub(crate) seed: u64,
    drill: PathBuf,
    next_number: Cell<u32>,
    restarted_stores: RefCell<Vec<Store>>,
}

/// Availability of hints. A hint is a notification over Redis, without content, that jobs may be ready. Without hints,
/// workers poll Postgres.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hints {
    /// Redis is available and carries hints.
    Redis,
    /// Redis is unavailable, so workers poll Postgres.
    Polling,
}

/// Concurrency settings of a worker process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Concurrency {
    /// Maximum number of jobs executed concurrently.
    pub(crate) concurrency: usize,
    /// Maximum number of jobs claimed ahead of execution.
    pub(crate) prefetch: usize,
}

impl std::fmt::Display for Concurrency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "concurrency {}, prefetch {}", self.concurrency, self.prefetch)
    }
}

/// A registered process that claims jobs.
pub(crate) struct Worker {
    /// Id under which the process registered as a worker.
    pub(crate) id: Uuid,
    /// Handle of the process.
    pub(crate) child: Child,
}

impl QueueBench {
    /// Prepares the bench: makes the stores durable, creates the ledger's tables, and creates an organization.
    pub(crate) async fn prepare(
        binary: &Path,
        drill: &Path,
        is_quick: bool,
        seed: u64,
    ) -> Result<Self> {
        let stores = Stores::from_environment()?;
        stores.make_durable().await?;
        let ledger = Ledger::open(&stores.admin).await?;
        ledger.prepare().await?;
        let bench = Self {
            stores,
            ledger,
            folder: Folder::new()?,
            binary: binary.to_owned(),
            is_quick,
            seed,
            drill: drill.to_owned(),
            next_number: Cell::new(0),
            restarted_stores: RefCell::default(),
        };
        let mut command = child::command(binary);
        command.args(["admin", "create-organization", "--slug", "default", "--name", "Default"]);
        command.env("DATABASE_URL", &bench.stores.database).env("REDIS_URL", &bench.stores.redis);
        command.env("DATABASE_OWNER_URL", &bench.stores.owner);
        let output = tokio::process::Command::from(command).kill_on_drop(true).output().await?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "cannot create an organization: {}", stderr.trim());
        Ok(bench)
    }

    /// Returns `quick` with `--quick`, otherwise `full`.
    pub(crate) fn either<T>(&self, full: T, quick: T) -> T {
        if self.is_quick { quick } else { full }
    }

    /// Keeps a restarted store running until the scenario ends.
    pub(crate) fn keep_running(&self, store: Store) {
        self.restarted_stores.borrow_mut().push(store);
    }

    fn command(&self, hints: Hints) -> std::process::Command {
        let mut command = child::command(&self.drill);
        command.env("DATABASE_URL", &self.stores.database);
        command.env("REDIS_URL", if hints == Hints::Redis { &self.stores.redis } else { NO_REDIS });
        command
    }

    fn name(&self, what: &str) -> String {
        let number = self.next_number.get() + 1;
        self.next_number.set(number);
        format!("{what}-{number}")
    }

    /// Runs the drill until it exits, and returns the duration that it prints.
    pub(crate) async fn drill(&self, arguments: &[&str], hints: Hints) -> Result<Duration> {
        let mut command = self.command(hints);
        command.args(arguments).stdin(Stdio::null());
        let output = tokio::process::Command::from(command).kill_on_drop(true).output().await?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "`drill {}` failed: {}",
            arguments.join(" "),
            stderr.trim()
        );
        let millis = String::from_utf8_lossy(&output.stdout);
        let millis =
            millis.lines().next().context("the drill printed no duration")?.trim().parse()?;
        Ok(Duration::from_millis(millis))
    }

    /// Pushes `count` jobs of a kind, `batch` per transaction, and returns the duration. `number` is the parameter of
    /// the kind, e.g. the milliseconds that a job takes.
    pub(crate) async fn push(
        &self,
        kind: &str,
        count: usize,
        batch: usize,
        number: u64,
    ) -> Result<Duration> {
        let [count, batch, number] = [count.to_string(), batch.to_string(), number.to_string()];
        self.drill(&["push", kind, &count, &batch, &number], Hints::Redis).await
    }

    /// Starts `sentryops worker` for one queue, with the secret keys that `sentryops up` created, and waits until the
    /// worker has registered.
    pub(crate) async fn serve(&self, queue: &str) -> Result<Worker> {
        let command = Server::worker(&self.binary, self.folder.path(), &self.stores, &[queue])?;
        self.wait_until_registered(|| {
            Child::spawn(&self.name("worker"), self.folder.path(), command)
        })
        .await
    }

    /// Starts a drill that claims jobs. Does not wait until the drill registers, because it may exit before.
    pub(crate) fn spawn(&self, pace: Concurrency, hints: Hints) -> Result<Child> {
        let mut command = self.command(hints);
        command
            .arg("work")
            .args([pace.concurrency, pace.prefetch].map(|number| number.to_string()));
        Child::spawn(&self.name("drill"), self.folder.path(), command)
    }

    /// Starts a drill that claims jobs, and waits until it has registered.
    pub(crate) async fn work(&self, pace: Concurrency, hints: Hints) -> Result<Worker> {
        self.wait_until_registered(|| self.spawn(pace, hints)).await
    }

    /// Starts `count` drills that claim jobs with Redis hints, and waits until each has registered.
    pub(crate) async fn fleet(&self, count: usize, pace: Concurrency) -> Result<Vec<Worker>> {
        let mut fleet = Vec::with_capacity(count);
        for _ in 0..count {
            fleet.push(self.work(pace, Hints::Redis).await?);
        }
        Ok(fleet)
    }

    /// Starts a process and waits until it has registered as a worker. Must not be called concurrently, because the
    /// worker's id is found as the only new one.
    pub(crate) async fn wait_until_registered(
        &self,
        spawn: impl FnOnce() -> Result<Child>,
    ) -> Result<Worker> {
        let known = self.ledger.workers().await?;
        let mut child = spawn()?;
        let began = Instant::now();
        while began.elapsed() < REGISTRATION_TIMEOUT {
            let registered = self.ledger.workers().await?;
            if let Some(id) = registered.into_iter().find(|id| !known.contains(id)) {
                return Ok(Worker { id, child });
            }
            child.check()?;
            tokio::time::sleep(POLL_EVERY).await;
        }
        bail!(
            "the worker did not register within {} s; its log ends with:\n{}",
            REGISTRATION_TIMEOUT.as_secs(),
            child.log_tail()
        )
    }
}

/// Stops processes with SIGSTOP, so that all of them can start work at the same time.
pub(crate) fn pause(fleet: &mut [Worker]) -> Result<()> {
    fleet.iter_mut().try_for_each(|worker| worker.child.signal(Signal::STOP))
}

/// Resumes paused processes with SIGCONT.
pub(crate) fn resume(fleet: &mut [Worker]) -> Result<()> {
    fleet.iter_mut().try_for_each(|worker| worker.child.signal(Signal::CONT))
}

/// Stops processes one after the other with SIGTERM.
pub(crate) async fn stop(fleet: Vec<Worker>) -> Result<()> {
    for worker in fleet {
        worker.child.stop().await?;
    }
    Ok(())
}
