//! A deployment as in production: one API process and separate worker processes, on stores that sync to disk. Each part
//! of a scenario has an empty organization of its own, which `sentryops admin` creates.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tokio_postgres::{Client, types::ToSql};

use crate::{
    child::{self, Child},
    folder::Folder,
    seed,
    server::Server,
    stores::Stores,
};

/// Timeout for a worker process to register.
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(30);
const POLL_EVERY: Duration = Duration::from_millis(10);

/// An API process and worker processes, on durable stores.
pub(crate) struct Deployment {
    /// Postgres and Redis of the deployment.
    pub(crate) stores: Stores,
    /// Temporary folder for files and process logs.
    pub(crate) folder: Folder,
    /// API process that serves the requests.
    pub(crate) api: Server,
    /// Worker processes that claim jobs.
    pub(crate) workers: Vec<Child>,
    /// Connection to Postgres as a superuser, which bypasses row security.
    pub(crate) postgres: Client,
    binary: PathBuf,
    queues: &'static [&'static str],
    started: usize,
}

/// An organization and the access token of one of its administrators.
pub(crate) struct Tenant {
    /// Slug of the organization, also used in its administrator's e-mail.
    pub(crate) slug: String,
    /// Access token of the administrator.
    pub(crate) token: String,
}

impl Deployment {
    /// Starts the API process and one worker for the given queues, on the stores of `sentryops services`.
    pub(crate) async fn open(binary: &Path, queues: &'static [&'static str]) -> Result<Self> {
        let (stores, folder) = (Stores::from_environment()?, Folder::new()?);
        stores.make_durable().await?;
        // `sentryops up` creates the database schema and the secret keys.
        Server::up(binary, folder.path(), Some(&stores)).await?.stop().await?;
        let api = Server::api(binary, folder.path(), &stores, &stores.database).await?;
        let postgres = stores.connect().await?;
        let (binary, workers) = (binary.to_owned(), Vec::new());
        let mut deployment =
            Self { stores, folder, api, workers, postgres, binary, queues, started: 0 };
        deployment.start_worker()?;
        Ok(deployment)
    }

    /// Starts one more worker, without waiting until it registers.
    pub(crate) fn start_worker(&mut self) -> Result<()> {
        self.started += 1;
        let command = Server::worker(&self.binary, self.folder.path(), &self.stores, self.queues)?;
        let name = format!("worker-{}", self.started);
        self.workers.push(Child::spawn(&name, self.folder.path(), command)?);
        Ok(())
    }

    /// Starts one more worker and waits until it has registered.
    pub(crate) async fn join_worker(&mut self) -> Result<()> {
        let known = self.workers_seen().await?;
        self.start_worker()?;
        self.wait_until_registered(known + 1).await
    }

    /// Waits until `count` workers have registered since the deployment was opened, including workers that have exited.
    ///
    /// # Errors
    /// Fails if a current worker has exited, or after 30 s.
    pub(crate) async fn wait_until_registered(&mut self, count: i64) -> Result<()> {
        let began = Instant::now();
        while self.workers_seen().await? < count {
            for worker in &mut self.workers {
                worker.check()?;
            }
            if began.elapsed() > REGISTRATION_TIMEOUT {
                bail!("no new worker registered within {} s", REGISTRATION_TIMEOUT.as_secs());
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
        Ok(())
    }

    async fn workers_seen(&self) -> Result<i64> {
        Ok(self.postgres.query_one("SELECT count(*) FROM worker", &[]).await?.try_get(0)?)
    }

    /// Stops the workers, then the API, with SIGTERM.
    pub(crate) async fn close(self) -> Result<()> {
        for worker in self.workers {
            worker.stop().await?;
        }
        self.api.stop().await.map(drop)
    }

    /// Creates an organization with an administrator, and signs in as that administrator.
    pub(crate) async fn tenant(&self, slug: &str) -> Result<Tenant> {
        let email = format!("admin@{slug}.example");
        self.admin(&["create-organization", "--slug", slug, "--name", slug]).await?;
        let person = ["--email", &email, "--name", "Load Tests", "--role", "admin"];
        let create_user = [&["create-user", "--organization", slug], &person[..]].concat();
        let output = self.admin(&create_user).await?;
        let password = output.lines().nth(1).context("`admin create-user` printed no password")?;
        let token = seed::token(self.api.address, &email, password).await?;
        Ok(Tenant { slug: slug.to_owned(), token })
    }

    /// Returns the integer selected by a query in which `$1` is the organization's slug; bypasses row security.
    pub(crate) async fn count(&self, tenant: &Tenant, sql: &str) -> Result<i64> {
        let slug: &(dyn ToSql + Sync) = &tenant.slug;
        let row = self.postgres.query_one(sql, &[slug]).await.with_context(|| sql.to_owned())?;
        Ok(row.try_get(0)?)
    }

    /// Runs `sentryops admin` and returns its standard output.
    ///
    /// # Errors
    /// Fails with the command's output if it exits with an error.
    pub(crate) async fn admin(&self, arguments: &[&str]) -> Result<String> {
        let mut command = child::command(&self.binary);
        command.arg("admin").args(arguments).env("REDIS_URL", &self.stores.redis);
        command.env("DATABASE_URL", &self.stores.database);
        command.env("DATABASE_OWNER_URL", &self.stores.owner);
        let output = tokio::process::Command::from(command).kill_on_drop(true).output().await?;
        let printed = String::from_utf8(output.stdout)?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "`sentryops admin {}` failed: {printed}{errors}",
            arguments.join(" ")
        );
        Ok(printed)
    }
}
