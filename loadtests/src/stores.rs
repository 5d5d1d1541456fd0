//! Postgres and Redis that all servers of a run share: those of `sentryops services`, under which the scenario runs.
//!
//! `up` alone would do for us, but tells nobody the passwords of its private Postgres, and a peer must read the same rows.
//! These services do not sync to disk; `queue`, which measures what writes, makes them. Addresses out of the caller's
//! environment are never used: a scenario fills what it is given.

use std::{
    env,
    os::unix::process::{CommandExt, parent_id},
    path::Path,
};

use anyhow::{Context, Result};
use tokio_postgres::NoTls;

use crate::{child, usage};

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

    /// What autovacuum would do in the middle of the run.
    pub(crate) async fn vacuum(&self) -> Result<()> {
        let (client, connection) =
            tokio_postgres::connect(&self.admin, NoTls).await.context("connect to Postgres")?;
        let connection = tokio::spawn(connection);
        client.batch_execute("VACUUM ANALYZE").await.context("vacuum")?;
        drop(client);
        connection.await?.context("leave Postgres")
    }
}
