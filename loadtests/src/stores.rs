//! Postgres and Redis that all servers of a run share: those of `sentryops services`, under which the scenario runs.
//!
//! `up` alone would do for us, but tells nobody the passwords of its private Postgres, and a peer must read the same rows.
//! These services do not sync to disk; scenarios that measure what writes make them. Addresses out of the caller's
//! environment are never used: a scenario fills what it is given.

use std::{
    env,
    os::unix::process::{CommandExt, parent_id},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tokio_postgres::{Client, NoTls};

use crate::{child, usage};

/// `sentryops services` turns these off, since what it holds is thrown away.
const DURABLE: [&str; 3] = ["fsync", "synchronous_commit", "full_page_writes"];
const DURABLE_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Where they are.
pub(crate) struct Stores {
    /// Postgres as the login that serves.
    pub(crate) database: String,
    /// Postgres as the owner.
    pub(crate) owner: String,
    /// Postgres as a superuser.
    pub(crate) admin: String,
    /// Redis.
    pub(crate) redis: String,
    /// The process of Postgres that started all its others.
    pub(crate) postgres: u32,
}

/// Becomes `sentryops services -- loadtests … --inside`, with the arguments of now. Returns only if that fails.
pub(crate) fn enter(binary: &Path) -> Result<()> {
    let error = child::command(binary)
        .args(["services", "--"])
        .arg(env::current_exe()?)
        .args(env::args_os().skip(1))
        .arg("--inside")
        .env("LOG_LEVEL", "warn")
        .exec();
    Err(error).with_context(|| format!("{} cannot be run", binary.display()))
}

impl Stores {
    /// Those that `sentryops services` started us with.
    pub(crate) fn inside() -> Result<Self> {
        let given =
            |name| env::var(name).with_context(|| format!("{name} is not set: leave out --inside"));
        Ok(Self {
            database: given("DATABASE_URL")?,
            owner: given("DATABASE_OWNER_URL")?,
            admin: given("TEST_ADMIN_URL")?,
            redis: given("REDIS_URL")?,
            postgres: usage::child_named(parent_id(), "postgres")?,
        })
    }

    /// A connection to Postgres as a superuser.
    pub(crate) async fn connect(&self) -> Result<Client> {
        connect(&self.admin).await
    }

    /// What autovacuum would do in the middle of the run.
    pub(crate) async fn vacuum(&self) -> Result<()> {
        self.connect().await?.batch_execute("VACUUM ANALYZE").await.context("vacuum")
    }

    /// Turns on what was turned off for speed.
    pub(crate) async fn make_durable(&self) -> Result<()> {
        let client = self.connect().await?;
        for setting in DURABLE {
            client.batch_execute(&format!("ALTER SYSTEM SET {setting} = on")).await?;
        }
        client.batch_execute("SELECT pg_reload_conf()").await?;
        let deadline = Instant::now() + DURABLE_WITHIN;
        while !is_durable(&self.connect().await?).await? {
            ensure!(Instant::now() < deadline, "Postgres does not become durable");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        client.batch_execute("CHECKPOINT").await.context("checkpoint")
    }
}

/// A connection to Postgres at this address.
pub(crate) async fn connect(url: &str) -> Result<Client> {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.context("connect to Postgres")?;
    // Ends with the client, or with Postgres, and then the next query says so.
    tokio::spawn(connection);
    Ok(client)
}

async fn is_durable(client: &Client) -> Result<bool> {
    for setting in DURABLE {
        let row = client.query_one(&format!("SHOW {setting}"), &[]).await?;
        if row.try_get::<_, &str>(0)? != "on" {
            return Ok(false);
        }
    }
    Ok(true)
}
