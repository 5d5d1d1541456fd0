//! Private Postgres and Redis as child processes, for installations that have no servers for them.
//!
//! | file | contents |
//! |---|---|
//! | `home` | the data folder, locked by this process |
//! | `runtime` | the folder of the Unix sockets, with a short path |
//! | `scratch` | temporary data folders |
//! | `account` | the unprivileged user that runs the child processes |
//! | `program` | paths of `postgres`, `initdb`, `redis-server` on this machine |
//! | `secret` | passwords of the services, generated once |
//! | `child` | a child process: started, watched, stopped |
//! | `orphan` | service processes that an earlier run left behind |
//! | `log` | output of the child processes, bounded in size |
//! | `cluster`, `initdb` | files of the Postgres cluster: paths, creation |
//! | `postgres`, `redis` | one service each |
//! | `running` | URLs of the Postgres that another sentryops process runs |
//!
//! In this module, "we" and "us" mean the sentryops process, and "the children" mean the processes of Postgres and
//! Redis.
//!
//! The services listen on Unix sockets only, so no port can collide or be attacked. Children never run as root, and
//! inherit almost no environment variables (see `child`). Each child has its own process group, so Ctrl-C reaches only
//! us. If we are killed, Linux signals the children to stop (see `child`); on other systems, the next start stops them.
//! Redis is not persisted, because its data may be lost. A cluster (the Postgres data directory) serves one machine.
//! For replicas or backup tools, set `DATABASE_URL`; then this module starts no Postgres.

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
pub(crate) use running::find_running;

use child::{Child, Launcher};
use home::Home;
use program::Search;
use secret::Secrets;

/// Interval at which the logs of the children are checked, and truncated if too long.
const LOG_CHECK_INTERVAL: Duration = Duration::from_mins(1);

/// Services to start, i.e. the services whose URL is not set.
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

/// Data loss that is acceptable after a power failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Durability {
    /// No committed data is lost.
    Durable,
    /// Any loss of data is acceptable. For tests and trials, whose data is deleted at the end.
    Scratch,
}

/// Running private services and their URLs. Stop them with [`Services::stop`]. If the value is dropped instead (after a
/// panic or a cancelled start), the services are signalled to stop, but nothing waits for their exit.
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
/// If no server program is found. The message names the package to install.
pub(crate) fn check_redis() -> Result<()> {
    Search::of_this_machine().redis().map(drop)
}

impl Services {
    /// Starts the requested services on a data folder. Creates the folder, the cluster and its logins if they are
    /// missing.
    ///
    /// # Errors
    /// If another sentryops process has locked the folder, if a program is not installed (the message names the
    /// package), if the data needs another version of Postgres, or if a service did not start (the message contains the
    /// end of its log).
    pub(crate) async fn start(data_dir: &Path, requested: Requested) -> Result<Self> {
        Self::start_with(data_dir, requested, Durability::Durable).await
    }

    /// Starts the requested services on a new temporary data folder, which [`Services::stop`] removes. Writes are not
    /// synced to disk.
    ///
    /// # Errors
    /// The same as for [`Services::start`].
    pub(crate) async fn start_scratch(requested: Requested) -> Result<Self> {
        scratch::sweep().await;
        let folder = scratch::folder()?;
        let started = Self::start_with(&folder, requested, Durability::Scratch).await;
        if started.is_err() {
            home::remove(&folder).await?;
        }
        started
    }

    async fn start_with(
        data_dir: &Path,
        requested: Requested,
        durability: Durability,
    ) -> Result<Self> {
        let home = Home::claim(data_dir)?;
        let launcher = Launcher::new(home.account.clone());
        let search = Search::of_this_machine();
        let major_of = |program: &Path| launcher.major_of(program);
        let major = home.cluster_major()?;
        let postgres = requested.postgres.then(|| search.postgres(major, major_of)).transpose()?;
        let redis = requested.redis.then(|| search.redis()).transpose()?;
        clear(&home).await?;
        let secrets = Secrets::find_or_generate(&home)?;

        let mut services =
            Self { database: None, redis_url: None, postgres: None, redis: None, home, durability };
        match services.launch(&launcher, &secrets, postgres.as_ref(), redis.as_deref()).await {
            Ok(()) => Ok(services),
            Err(error) => {
                if let Err(stop_error) = services.stop().await {
                    warn!(
                        "the private services could not be stopped after a failed start: {stop_error:#}"
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
            initdb::create_if_missing(&self.home, launcher, secrets, program, self.durability)
                .await?;
            let child = postgres::spawn(&self.home, launcher, program, self.durability).await?;
            postgres::wait_until_ready(&self.home, secrets, self.postgres.insert(child)).await?;
            self.database = Some(DatabaseUrls::new(&self.home.runtime, secrets));
        }
        if let Some(child) = &mut self.redis {
            redis::wait_until_ready(&self.home, secrets, child).await?;
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

    /// Waits until a service ends unexpectedly, and returns a sentence that names the service and its log. Cancel-safe.
    /// The wait also truncates long logs, so call this for as long as the services run.
    pub(crate) async fn unexpected_end(&mut self) -> String {
        let mut log_check = tokio::time::interval(LOG_CHECK_INTERVAL);
        loop {
            tokio::select! {
                message = unexpected_end_of(&mut self.postgres) => return message,
                message = unexpected_end_of(&mut self.redis) => return message,
                _ = log_check.tick() => {
                    for child in self.postgres.iter().chain(&self.redis) {
                        child.log.truncate_if_long();
                    }
                }
            }
        }
    }

    /// Stops both services within about 40 s: by a graceful shutdown, then by stronger signals, then by SIGKILL.
    /// Returns when no process is left. Removes a temporary data folder.
    ///
    /// # Errors
    /// If a process could not be stopped, or a folder could not be removed. All other steps have been carried out.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let (postgres, redis) = (self.postgres.take(), self.redis.take());
        let postgres_result = async {
            match postgres {
                Some(child) => postgres::stop(child, &self.home, self.durability).await,
                None => Ok(()),
            }
        };
        let redis_result = async {
            match redis {
                Some(child) => redis::stop(child).await,
                None => Ok(()),
            }
        };
        let (postgres_result, redis_result) = tokio::join!(postgres_result, redis_result);
        let home_result = match self.durability {
            Durability::Durable => self.home.release().await,
            Durability::Scratch => self.home.remove().await,
        };
        postgres_result
            .and(redis_result)
            .and(home_result)
            .context("the private services did not stop cleanly")
    }
}

/// Stops service processes that an earlier run left on the data folder, and removes their sockets from the runtime
/// folder.
async fn clear(home: &Home) -> Result<()> {
    postgres::stop_orphans(home).await?;
    redis::stop_orphans(home).await?;
    runtime::empty(&home.runtime)
}

async fn unexpected_end_of(child: &mut Option<Child>) -> String {
    match child {
        Some(child) => {
            let exit_status = child.wait_for_exit().await;
            let name = child.name;
            format!(
                "{name} ended unexpectedly ({exit_status}); see its log at {}",
                child.log.path.display()
            )
        }
        None => std::future::pending().await,
    }
}
