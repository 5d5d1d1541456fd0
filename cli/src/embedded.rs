//! Private Postgres and Redis as child processes, for installations without servers of their own.
//!
//! | file | noun |
//! |---|---|
//! | `home` | the data folder, claimed with a lock |
//! | `runtime` | the folder of the sockets, with a short path |
//! | `scratch` | temporary data folders |
//! | `account` | the unprivileged user the children run as |
//! | `program` | paths of `postgres`, `initdb`, `redis-server` on this machine |
//! | `secret` | the passwords, generated once |
//! | `child` | a child process: started, watched, stopped |
//! | `orphan` | processes that an earlier run left behind |
//! | `log` | output of the children, bounded in size |
//! | `cluster`, `initdb` | files of the Postgres cluster: paths, creation |
//! | `postgres`, `redis` | one service each |
//! | `running` | connection to an instance that another process runs |
//!
//! Unix sockets only, so no port can collide or be attacked. Children never run as root and see almost nothing of our
//! environment (see `child`). They have their own process groups, so that Ctrl-C reaches only us. If we are killed,
//! Linux signals them to stop (see `child`); on other systems, the next start stops them first. Redis is not persisted,
//! because it holds nothing that must survive. One cluster serves one machine. Choose again for replicas or backup
//! tools: set
//! `DATABASE_URL`, and this module starts no Postgres.

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

/// Interval at which the logs of the children are checked, and truncated if too long.
const LOG_CHECK_INTERVAL: Duration = Duration::from_mins(1);

/// Services to start: those whose URL the operator has not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Requested {
    /// Start Postgres, because `DATABASE_URL` is not set.
    pub(crate) postgres: bool,
    /// Start Redis, because `REDIS_URL` is not set.
    pub(crate) redis: bool,
}

impl Requested {
    /// Both services, Postgres and Redis.
    pub(crate) const BOTH: Self = Self { postgres: true, redis: true };
}

/// Data loss that a power failure may cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Durability {
    /// No committed data is lost.
    Durable,
    /// Any data may be lost: for tests and trials, whose data is deleted anyway.
    Scratch,
}

/// Running services and their URLs. Stop them with [`Services::stop`]. If dropped instead (after a panic or a cancelled
/// start), they are signalled to stop, but their end is not awaited.
pub(crate) struct Services {
    /// URLs of Postgres; `None` if it was not requested.
    pub(crate) database: Option<DatabaseUrls>,
    /// URL of Redis, `redis+unix://:password@local/path` as `fred` parses it; `None` if not requested.
    pub(crate) redis_url: Option<String>,
    postgres: Option<Child>,
    redis: Option<Child>,
    home: Home,
    durability: Durability,
}

impl fmt::Debug for Services {
    /// Omits the URLs, because they contain passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services")
            .field("data", &self.home.data)
            .field("runtime", &self.home.runtime)
            .finish_non_exhaustive()
    }
}

/// Checks that a Redis or Valkey server is installed; for `doctor`.
///
/// # Errors
/// If none is found. The message names the package to install.
pub(crate) fn check_redis() -> Result<()> {
    Search::of_this_machine().redis().map(drop)
}

impl Services {
    /// Starts the requested services on a data folder. Creates the folder, the cluster and its logins if they are
    /// missing.
    ///
    /// # Errors
    /// If another instance holds the folder, a program is not installed (the message names the package), the data needs
    /// another version of Postgres, or a service did not start (the message contains the end of its log).
    pub(crate) async fn start(data_dir: &Path, want: Requested) -> Result<Self> {
        Self::start_with(data_dir, want, Durability::Durable).await
    }

    /// Starts the requested services on a new temporary folder, which [`Services::stop`] removes. Writes are not synced
    /// to disk.
    ///
    /// # Errors
    /// As [`Services::start`].
    pub(crate) async fn start_scratch(want: Requested) -> Result<Self> {
        scratch::sweep().await;
        let folder = scratch::folder()?;
        let started = Self::start_with(&folder, want, Durability::Scratch).await;
        if started.is_err() {
            home::remove(&folder).await?;
        }
        started
    }

    async fn start_with(data_dir: &Path, want: Requested, durability: Durability) -> Result<Self> {
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
                    warn!(
                        "the private services could not be stopped after a failed start: {stopping:#}"
                    );
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
            "private services are running on {} as user {}",
            self.home.data.display(),
            self.home.account.name,
        );
        Ok(())
    }

    /// Resolves when a service has ended unexpectedly, with a sentence that names it. Pends while both services run.
    /// Cancel-safe. It also truncates long logs, so await it for as long as the services run.
    pub(crate) async fn unexpected_end(&mut self) -> String {
        let mut log_check = tokio::time::interval(LOG_CHECK_INTERVAL);
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

    /// Stops both services within about 40 s: by a graceful shutdown, then by stronger signals, then by SIGKILL.
    /// Returns when no process is left. Removes a temporary folder.
    ///
    /// # Errors
    /// If a process could not be stopped or a folder not removed. Everything else has been stopped regardless.
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

/// Stops processes that an earlier run left on this folder, and removes their sockets from the runtime folder.
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
            format!(
                "{name} ended unexpectedly ({how}); see its log at {}",
                child.log.path.display()
            )
        }
        None => std::future::pending().await,
    }
}
