//! A deployment as its operators run it: one API and workers, each a process of its own, on stores that sync to disk.
//! Organizations are made by `sentryops admin`, so that a part of a scenario begins with an empty one.

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

/// How long a worker may take until it is seen.
const SEEN_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// See the module.
pub(crate) struct Deployment {
    /// What it stands on.
    pub(crate) stores: Stores,
    /// For files and logs.
    pub(crate) folder: Folder,
    /// The server.
    pub(crate) api: Server,
    /// Those that take jobs.
    pub(crate) workers: Vec<Child>,
    /// Postgres as a superuser, past row security.
    pub(crate) postgres: Client,
    binary: PathBuf,
    queues: &'static [&'static str],
    started: usize,
}

/// An organization, and somebody who may do there what administrators may.
pub(crate) struct Tenant {
    /// Its short name.
    pub(crate) slug: String,
    /// Their access token.
    pub(crate) token: String,
}

impl Deployment {
    /// Starts all of it, with one worker that takes from these queues; under `sentryops services`.
    pub(crate) async fn open(binary: &Path, queues: &'static [&'static str]) -> Result<Self> {
        let (stores, folder) = (Stores::inside()?, Folder::new()?);
        stores.make_durable().await?;
        // Makes the schema and the keys.
        Server::up(binary, folder.path(), Some(&stores)).await?.stop().await?;
        let api = Server::api(binary, folder.path(), &stores, &stores.database).await?;
        let postgres = stores.connect().await?;
        let (binary, workers) = (binary.to_owned(), Vec::new());
        let mut deployment =
            Self { stores, folder, api, workers, postgres, binary, queues, started: 0 };
        deployment.start_worker()?;
        Ok(deployment)
    }

    /// One worker more.
    pub(crate) fn start_worker(&mut self) -> Result<()> {
        self.started += 1;
        let command = Server::worker(&self.binary, self.folder.path(), &self.stores, self.queues)?;
        let name = format!("worker-{}", self.started);
        self.workers.push(Child::spawn(&name, self.folder.path(), command)?);
        Ok(())
    }

    /// One worker more, which has begun to take jobs.
    pub(crate) async fn join_worker(&mut self) -> Result<()> {
        let known = self.workers_seen().await?;
        self.start_worker()?;
        self.until_seen(known + 1).await
    }

    /// Waits until so many workers have ever been seen.
    pub(crate) async fn until_seen(&mut self, count: i64) -> Result<()> {
        let began = Instant::now();
        while self.workers_seen().await? < count {
            for worker in &mut self.workers {
                worker.check()?;
            }
            if began.elapsed() > SEEN_WITHIN {
                bail!("a worker was not seen within {} s", SEEN_WITHIN.as_secs());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    async fn workers_seen(&self) -> Result<i64> {
        Ok(self.postgres.query_one("SELECT count(*) FROM worker", &[]).await?.try_get(0)?)
    }

    /// Ends all of it, as an operator would.
    pub(crate) async fn close(self) -> Result<()> {
        for worker in self.workers {
            worker.stop().await?;
        }
        self.api.stop().await.map(drop)
    }

    /// Makes an organization and signs in to it.
    pub(crate) async fn tenant(&self, slug: &str) -> Result<Tenant> {
        let email = format!("admin@{slug}.example");
        self.admin(&["create-organization", "--slug", slug, "--name", slug]).await?;
        let person = ["--email", &email, "--name", "Load Tests", "--role", "admin"];
        let made = [&["create-user", "--organization", slug], &person[..]].concat();
        let said = self.admin(&made).await?;
        let password = said.lines().nth(1).context("`admin create-user` printed no password")?;
        let token = seed::token(self.api.address, &email, password).await?;
        Ok(Tenant { slug: slug.to_owned(), token })
    }

    /// One whole number about an organization, whose slug is `$1`; read past row security.
    pub(crate) async fn count(&self, tenant: &Tenant, sql: &str) -> Result<i64> {
        let slug: &(dyn ToSql + Sync) = &tenant.slug;
        let row = self.postgres.query_one(sql, &[slug]).await.with_context(|| sql.to_owned())?;
        Ok(row.try_get(0)?)
    }

    /// Runs `sentryops admin`; what it prints.
    ///
    /// # Errors
    /// Where it does not end well, with what it says.
    pub(crate) async fn admin(&self, arguments: &[&str]) -> Result<String> {
        let mut command = child::command(&self.binary);
        command.arg("admin").args(arguments).env("REDIS_URL", &self.stores.redis);
        command.env("DATABASE_URL", &self.stores.database);
        command.env("DATABASE_OWNER_URL", &self.stores.owner);
        let output = tokio::process::Command::from(command).kill_on_drop(true).output().await?;
        let printed = String::from_utf8(output.stdout)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "admin {}: {printed}{said}", arguments.join(" "));
        Ok(printed)
    }
}
