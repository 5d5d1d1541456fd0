//! Postgres and Redis shared by all servers of a run: those of `sentryops services`, under which the scenario runs.
//!
//! `up` alone is not enough: it does not disclose the passwords of its private Postgres, and a peer must read the same
//! rows. These services do not sync to disk by default; scenarios that measure writes turn syncing on. Store addresses
//! from the caller's environment are never used, because a scenario fills the stores with its own data.

use std::{
    env,
    os::unix::process::{CommandExt, parent_id},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tokio_postgres::{Client, NoTls};

use crate::{child, usage};

/// Settings that `sentryops services` turns off, because its data is temporary.
const DURABLE: [&str; 3] = ["fsync", "synchronous_commit", "full_page_writes"];
const DURABLE_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(100);

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

/// Replaces this process with `sentryops services -- loadtests … --inside`, with the current arguments. Returns only on
/// failure.
pub(crate) fn enter(binary: &Path) -> Result<()> {
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
    pub(crate) fn inside() -> Result<Self> {
        let given = |name| {
            env::var(name)
                .with_context(|| format!("{name} is not set; run the scenario without --inside"))
        };
        Ok(Self {
            database: given("DATABASE_URL")?,
            owner: given("DATABASE_OWNER_URL")?,
            admin: given("TEST_ADMIN_URL")?,
            redis: given("REDIS_URL")?,
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

    /// Turns on fsync, synchronous commits and full-page writes, waits until they apply, and makes a checkpoint.
    pub(crate) async fn make_durable(&self) -> Result<()> {
        let client = self.connect().await?;
        for setting in DURABLE {
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
            tokio::time::sleep(LOOK_EVERY).await;
        }
        client.batch_execute("CHECKPOINT").await.context("checkpoint")
    }
}

/// Connects to Postgres at this address.
pub(crate) async fn connect(url: &str) -> Result<Client> {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.context("connect to Postgres")?;
    // The task ends with the client or with Postgres; in the latter case the next query fails.
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
