//! The stores (Postgres and Redis) of a scenario, shared by all its servers. They are started by `sentryops services`,
//! and the scenario runs as a child of that process.
//!
//! `sentryops up` is not sufficient, because it does not disclose the passwords of its private Postgres, and a peer
//! must read the same rows. By default, `sentryops services` turns off syncing to disk; scenarios that measure writes
//! turn it on. Addresses of stores in the caller's environment are never used, because a scenario fills the stores with
//! its own data.

use std::{
    env,
    os::unix::process::{CommandExt, parent_id},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tokio_postgres::{Client, NoTls};

use crate::{child, usage};

/// Postgres settings that `sentryops services` turns off, because its data is temporary.
const DURABLE_SETTINGS: [&str; 3] = ["fsync", "synchronous_commit", "full_page_writes"];
const DURABLE_WITHIN: Duration = Duration::from_secs(10);
const POLL_EVERY: Duration = Duration::from_millis(100);

/// Addresses of Postgres and Redis, and the Postgres process.
pub(crate) struct Stores {
    /// Postgres URL of the application's login.
    pub(crate) database: String,
    /// Postgres URL of the schema's owner.
    pub(crate) owner: String,
    /// Postgres URL of a superuser.
    pub(crate) admin: String,
    /// URL of the Redis server.
    pub(crate) redis: String,
    /// Process id of the postmaster, the parent of all Postgres processes.
    pub(crate) postgres: u32,
}

/// Replaces this process with `sentryops services -- loadtests … --inside`, with the current arguments. Returns only if
/// that fails.
pub(crate) fn exec_under_services(binary: &Path) -> Result<()> {
    let error = child::command(binary)
        .args(["services", "--"])
        .arg(env::current_exe()?)
        .args(env::args_os().skip(1))
        .arg("--inside")
        .env("LOG_LEVEL", "warn")
        .exec();
    Err(error).with_context(|| format!("cannot run {}", binary.display()))
}

impl Stores {
    /// Returns the stores of the `sentryops services` process that started this one.
    ///
    /// # Errors
    /// Fails if an address is missing from the environment or the parent has no Postgres process.
    pub(crate) fn from_environment() -> Result<Self> {
        let variable = |name| {
            env::var(name)
                .with_context(|| format!("{name} is not set; run the scenario without --inside"))
        };
        Ok(Self {
            database: variable("DATABASE_URL")?,
            owner: variable("DATABASE_OWNER_URL")?,
            admin: variable("TEST_ADMIN_URL")?,
            redis: variable("REDIS_URL")?,
            postgres: usage::child_named(parent_id(), "postgres")?,
        })
    }

    /// Connects to Postgres as a superuser.
    pub(crate) async fn connect(&self) -> Result<Client> {
        connect(&self.admin).await
    }

    /// Runs `VACUUM ANALYZE`, which autovacuum might otherwise do in the middle of a measurement.
    pub(crate) async fn vacuum(&self) -> Result<()> {
        self.connect().await?.batch_execute("VACUUM ANALYZE").await.context("vacuum")
    }

    /// Turns on fsync, synchronous commits and full-page writes, waits until Postgres has applied the settings, and
    /// makes a checkpoint.
    pub(crate) async fn make_durable(&self) -> Result<()> {
        let client = self.connect().await?;
        for setting in DURABLE_SETTINGS {
            client.batch_execute(&format!("ALTER SYSTEM SET {setting} = on")).await?;
        }
        client.batch_execute("SELECT pg_reload_conf()").await?;
        let deadline = Instant::now() + DURABLE_WITHIN;
        while !is_durable(&self.connect().await?).await? {
            ensure!(
                Instant::now() < deadline,
                "Postgres did not apply the durable settings within {} s",
                DURABLE_WITHIN.as_secs()
            );
            tokio::time::sleep(POLL_EVERY).await;
        }
        client.batch_execute("CHECKPOINT").await.context("checkpoint")
    }
}

/// Connects to Postgres at this address.
pub(crate) async fn connect(url: &str) -> Result<Client> {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.context("connect to Postgres")?;
    // The task ends when the client is dropped or Postgres closes the connection. After a close, the next query fails.
    tokio::spawn(connection);
    Ok(client)
}

async fn is_durable(client: &Client) -> Result<bool> {
    for setting in DURABLE_SETTINGS {
        let row = client.query_one(&format!("SHOW {setting}"), &[]).await?;
        if row.try_get::<_, &str>(0)? != "on" {
            return Ok(false);
        }
    }
    Ok(true)
}
