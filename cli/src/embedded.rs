//! Private Postgres and Redis as child processes, for whoever has none.
//!
//! | file | noun |
//! |---|---|
//! | `home` | the data folder, claimed by a lock |
//! | `runtime` | the short folder of its sockets |
//! | `scratch` | data folders that are thrown away |
//! | `account` | the unprivileged user the children run as |
//! | `program` | where `postgres`, `initdb`, `redis-server` are on this machine |
//! | `secret` | the passwords, made once |
//! | `child` | a process that is started, watched, ended |
//! | `orphan` | what an earlier run left behind |
//! | `log` | what the children say, bounded |
//! | `cluster`, `initdb` | the files of Postgres: found again, made |
//! | `postgres`, `redis` | one service each |
//! | `running` | an instance of somebody else's, visited |
//!
//! Unix sockets only: no port to collide, none to attack. Children never run as root, see none of our environment, and have
//! their own process group, so that Ctrl-C reaches only us. If we are killed, Linux tells them to stop (see `child`); where
//! it does not, the next start ends them first. Redis is not persisted: it holds nothing that we would miss. One cluster
//! serves one machine; whoever needs replicas or backups by a tool gives `DATABASE_URL`, and this module rests.

mod account;
mod child;
mod cluster;
mod home;
mod initdb;
mod log;
mod orphan;
mod postgres;
mod program;
mod redis;
mod running;
mod runtime;
mod scratch;
mod secret;

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tracing::{info, warn};

pub(crate) use postgres::DatabaseUrls;
pub(crate) use running::running;

use child::{Child, Launcher};
use home::Home;
use program::Search;
use secret::Secrets;

/// How often the logs of the children are looked at, lest they grow without end.
const LOG_CHECK_EVERY: Duration = Duration::from_mins(1);

/// Which of the two to start: those whose address the operator has not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Want {
    /// `DATABASE_URL` is unset.
    pub(crate) postgres: bool,
    /// `REDIS_URL` is unset.
    pub(crate) redis: bool,
}

impl Want {
    /// Both services.
    pub(crate) const BOTH: Self = Self { postgres: true, redis: true };
}

/// What a power cut may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Durability {
    /// Nothing that was committed.
    Durable,
    /// Everything: for tests and trials, whose data is thrown away.
    Scratch,
}

/// The running services and where they are reached. End them with [`Services::stop`]; if dropped instead (a panic, a start
/// that was cancelled), they are told to stop, but nobody waits for them.
pub(crate) struct Services {
    /// Postgres, if it was wanted.
    pub(crate) database: Option<DatabaseUrls>,
    /// `redis+unix://:password@local/path`, as the crate `fred` reads it, if Redis was wanted.
    pub(crate) redis_url: Option<String>,
    postgres: Option<Child>,
    redis: Option<Child>,
    home: Home,
    durability: Durability,
}

impl fmt::Debug for Services {
    /// Without the addresses: they hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services")
            .field("data", &self.home.data)
            .field("runtime", &self.home.runtime)
            .finish_non_exhaustive()
    }
}

/// Whether Redis could be started here; for `doctor`.
///
/// # Errors
/// Names the package to install.
pub(crate) fn check_redis() -> Result<()> {
    Search::of_this_machine().redis().map(drop)
}

impl Services {
    /// Starts what is wanted on a data folder, making the folder, the cluster and its logins where they are missing.
    ///
    /// # Errors
    /// The message is for the operator: another instance holds the folder, a program is not installed (which package), the
    /// data needs another Postgres, or a service did not come up (with the end of its log).
    pub(crate) async fn start(data_dir: &Path, want: Want) -> Result<Self> {
        Self::start_with(data_dir, want, Durability::Durable).await
    }

    /// Starts what is wanted on a new temporary folder that [`Services::stop`] removes. Nothing is synced to disk.
    ///
    /// # Errors
    /// As [`Services::start`].
    pub(crate) async fn start_scratch(want: Want) -> Result<Self> {
        scratch::sweep().await;
        let folder = scratch::folder()?;
        let started = Self::start_with(&folder, want, Durability::Scratch).await;
        if started.is_err() {
            home::remove(&folder).await?;
        }
        started
    }

    async fn start_with(data_dir: &Path, want: Want, durability: Durability) -> Result<Self> {
        let home = Home::claim(data_dir)?;
        let launcher = Launcher::new(home.account.clone());
        let search = Search::of_this_machine();
        let major_of = |program: &Path| launcher.major_of(program);
        let major = home.cluster_major()?;
        let postgres = want.postgres.then(|| search.postgres(major, major_of)).transpose()?;
        let redis = want.redis.then(|| search.redis()).transpose()?;
        clear(&home).await?;
        let secrets = Secrets::find_or_make(&home)?;

        let mut services =
            Self { database: None, redis_url: None, postgres: None, redis: None, home, durability };
        match services.launch(&launcher, &secrets, postgres.as_ref(), redis.as_deref()).await {
            Ok(()) => Ok(services),
            Err(error) => {
                if let Err(stopping) = services.stop().await {
                    warn!("the services could not be stopped after a failed start: {stopping:#}");
                }
                Err(error)
            }
        }
    }

    async fn launch(
        &mut self,
        launcher: &Launcher,
        secrets: &Secrets,
        postgres: Option<&program::Postgres>,
        redis: Option<&Path>,
    ) -> Result<()> {
        if let Some(program) = redis {
            self.redis = Some(redis::spawn(&self.home, launcher, secrets, program).await?);
        }
        if let Some(program) = postgres {
            initdb::make_if_missing(&self.home, launcher, secrets, program, self.durability)
                .await?;
            let child = postgres::spawn(&self.home, launcher, program, self.durability).await?;
            postgres::ready(&self.home, secrets, self.postgres.insert(child)).await?;
            self.database = Some(DatabaseUrls::new(&self.home.runtime, secrets));
        }
        if let Some(child) = &mut self.redis {
            redis::ready(&self.home, secrets, child).await?;
            self.redis_url = Some(redis::url(&self.home.runtime, &secrets.redis));
        }
        info!(
            data = %self.home.data.display(),
            user = %self.home.account.name,
            "private services run on {} as user {}",
            self.home.data.display(),
            self.home.account.name,
        );
        Ok(())
    }

    /// Resolves when a service has ended that nobody asked to end, with a sentence that names it. Never resolves while all
    /// is well. May be dropped and called again. It also keeps the logs small, so await it for as long as the services run.
    pub(crate) async fn died(&mut self) -> String {
        let mut log_check = tokio::time::interval(LOG_CHECK_EVERY);
        loop {
            tokio::select! {
                said = ended(&mut self.postgres) => return said,
                said = ended(&mut self.redis) => return said,
                _ = log_check.tick() => {
                    for child in self.postgres.iter().chain(&self.redis) {
                        child.log.bound();
                    }
                }
            }
        }
    }

    /// Stops both, in order and within bounds (at most about 40 s): asked first, then told, then killed. Returns when no
    /// process is left. A temporary folder is removed.
    ///
    /// # Errors
    /// When something of ours could not be ended or removed; everything else has been stopped nevertheless.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let (postgres, redis) = (self.postgres.take(), self.redis.take());
        let of_postgres = async {
            match postgres {
                Some(child) => postgres::stop(child, &self.home, self.durability).await,
                None => Ok(()),
            }
        };
        let of_redis = async {
            match redis {
                Some(child) => redis::stop(child).await,
                None => Ok(()),
            }
        };
        let (of_postgres, of_redis) = tokio::join!(of_postgres, of_redis);
        let of_home = match self.durability {
            Durability::Durable => self.home.leave().await,
            Durability::Scratch => self.home.remove().await,
        };
        of_postgres.and(of_redis).and(of_home).context("the private services did not stop cleanly")
    }
}

/// Ends what an earlier run left on this folder, and empties the runtime folder of its sockets.
async fn clear(home: &Home) -> Result<()> {
    postgres::end_orphans(home).await?;
    redis::end_orphans(home).await?;
    runtime::empty(&home.runtime)
}

async fn ended(child: &mut Option<Child>) -> String {
    match child {
        Some(child) => {
            let how = child.ended().await;
            let name = child.name;
            format!("{name} ended unexpectedly ({how}); its log is {}", child.log.path.display())
        }
        None => std::future::pending().await,
    }
}
