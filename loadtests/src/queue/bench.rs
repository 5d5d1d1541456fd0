//! What every part stands on: the stores, the ledger, and processes that push and take jobs.

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

/// How long a process may take until it is seen.
const SEEN_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A socket where nobody listens.
const NO_REDIS: &str = "redis+unix:///nonexistent/redis.sock";

/// See the module.
pub(crate) struct QueueBench {
    /// Postgres and Redis.
    pub(crate) stores: Stores,
    /// What became of jobs.
    pub(crate) ledger: Ledger,
    /// For the logs of processes.
    pub(crate) folder: Folder,
    /// The binary.
    pub(crate) binary: PathBuf,
    /// A short run.
    pub(crate) is_quick: bool,
    /// What randomness begins with.
    pub(crate) seed: u64,
    drill: PathBuf,
    next: Cell<u32>,
    kept: RefCell<Vec<Store>>,
}

/// Whether processes hear that there is work, or have to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hints {
    /// Redis is there.
    Redis,
    /// It is not.
    Nobody,
}

/// How a worker process works.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Jobs at a time.
    pub(crate) concurrency: usize,
    /// Jobs claimed ahead.
    pub(crate) prefetch: usize,
}

impl std::fmt::Display for Pace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} jobs at a time, {} ahead", self.concurrency, self.prefetch)
    }
}

/// A process that takes jobs.
pub(crate) struct Worker {
    /// What the queue calls it.
    pub(crate) id: Uuid,
    /// The process.
    pub(crate) child: Child,
}

impl QueueBench {
    /// On these stores, which get an organization.
    pub(crate) async fn prepare(
        binary: &Path,
        drill: &Path,
        is_quick: bool,
        seed: u64,
    ) -> Result<Self> {
        let stores = Stores::inside()?;
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
            next: Cell::new(0),
            kept: RefCell::default(),
        };
        let mut made = child::command(binary);
        made.args(["admin", "create-organization", "--slug", "default", "--name", "Default"]);
        made.env("DATABASE_URL", &bench.stores.database).env("REDIS_URL", &bench.stores.redis);
        made.env("DATABASE_OWNER_URL", &bench.stores.owner);
        let made = tokio::process::Command::from(made).kill_on_drop(true).output().await?;
        let said = String::from_utf8_lossy(&made.stderr);
        ensure!(made.status.success(), "no organization could be made: {}", said.trim());
        Ok(bench)
    }

    /// One of two, by how long the run may take.
    pub(crate) fn either<T>(&self, full: T, quick: T) -> T {
        if self.is_quick { quick } else { full }
    }

    /// Keeps a store that we have started until the end.
    pub(crate) fn keep(&self, store: Store) {
        self.kept.borrow_mut().push(store);
    }

    fn command(&self, hints: Hints) -> std::process::Command {
        let mut command = child::command(&self.drill);
        command.env("DATABASE_URL", &self.stores.database);
        command.env("REDIS_URL", if hints == Hints::Redis { &self.stores.redis } else { NO_REDIS });
        command
    }

    fn name(&self, what: &str) -> String {
        let number = self.next.get() + 1;
        self.next.set(number);
        format!("{what}-{number}")
    }

    /// Runs the drill until it is done; how long it says that its work took.
    pub(crate) async fn drill(&self, arguments: &[&str], hints: Hints) -> Result<Duration> {
        let mut command = self.command(hints);
        command.args(arguments).stdin(Stdio::null());
        let output = tokio::process::Command::from(command).kill_on_drop(true).output().await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "drill {}: {}", arguments.join(" "), said.trim());
        let millis = String::from_utf8_lossy(&output.stdout);
        let millis = millis.lines().next().context("the drill said nothing")?.trim().parse()?;
        Ok(Duration::from_millis(millis))
    }

    /// Pushes jobs of a kind, so many a transaction.
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

    /// Starts `sentryops worker` for one queue, with the keys that `up` made.
    pub(crate) async fn serve(&self, queue: &str) -> Result<Worker> {
        let command = Server::worker(&self.binary, self.folder.path(), &self.stores, &[queue])?;
        self.seen(|| Child::spawn(&self.name("worker"), self.folder.path(), command)).await
    }

    /// Starts a process that takes jobs, and does not wait for it to be seen: it may end before that.
    pub(crate) fn spawn(&self, pace: Pace, hints: Hints) -> Result<Child> {
        let mut command = self.command(hints);
        command
            .arg("work")
            .args([pace.concurrency, pace.prefetch].map(|number| number.to_string()));
        Child::spawn(&self.name("drill"), self.folder.path(), command)
    }

    /// Starts a process that takes jobs.
    pub(crate) async fn work(&self, pace: Pace, hints: Hints) -> Result<Worker> {
        self.seen(|| self.spawn(pace, hints)).await
    }

    /// Starts some of them.
    pub(crate) async fn fleet(&self, count: usize, pace: Pace) -> Result<Vec<Worker>> {
        let mut fleet = Vec::with_capacity(count);
        for _ in 0..count {
            fleet.push(self.work(pace, Hints::Redis).await?);
        }
        Ok(fleet)
    }

    /// Starts a process and waits until it registers itself as a worker; to be called for one at a time.
    pub(crate) async fn seen(&self, spawn: impl FnOnce() -> Result<Child>) -> Result<Worker> {
        let known = self.ledger.workers().await?;
        let mut child = spawn()?;
        let began = Instant::now();
        while began.elapsed() < SEEN_WITHIN {
            let seen = self.ledger.workers().await?;
            if let Some(id) = seen.into_iter().find(|id| !known.contains(id)) {
                return Ok(Worker { id, child });
            }
            child.check()?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
        bail!("a worker was not seen within {} s:\n{}", SEEN_WITHIN.as_secs(), child.last_words())
    }
}

/// Holds processes still, so that all of them begin at the same moment.
pub(crate) fn pause(fleet: &mut [Worker]) -> Result<()> {
    fleet.iter_mut().try_for_each(|worker| worker.child.signal(Signal::STOP))
}

/// Lets them go on.
pub(crate) fn resume(fleet: &mut [Worker]) -> Result<()> {
    fleet.iter_mut().try_for_each(|worker| worker.child.signal(Signal::CONT))
}

/// Ends processes in good order.
pub(crate) async fn stop(fleet: Vec<Worker>) -> Result<()> {
    for worker in fleet {
        worker.child.stop().await?;
    }
    Ok(())
}
