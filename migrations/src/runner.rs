//! Applies migrations and takes them back. Each is one transaction together with its row in `schema_migration`, so it
//! is there whole or not at all, and what came before it stays. Statements wait 3 s for a lock: better to fail and run
//! again than to queue the whole application behind us. All of it acts as `sentryops_owner`, whoever is connected.
//!
//! Everything set for a run is local to its transactions; only the advisory lock belongs to the session. Whoever drops
//! one of these futures before its end must close the connection, not reuse it.

use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage, Transaction};
use tracing::info;

use crate::error::{Error, Failure};
use crate::lock;
use crate::migration::{self, Direction, Migration};
use crate::record::{self, Record};

/// A migration that was run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Its number.
    pub version: i32,
    /// Its name.
    pub name: &'static str,
    /// Which way it was run.
    pub direction: Direction,
    /// How long its SQL took.
    pub elapsed: Duration,
}

// A limit of PostgreSQL 17 is lifted by name, because older versions do not know it.
const LOCALS: &str = "
    SET LOCAL ROLE sentryops_owner;
    SET LOCAL search_path = public;
    SET LOCAL lock_timeout = '3s';
    SELECT set_config(name, '0', true) FROM pg_settings
    WHERE name IN ('statement_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout');";

/// Applies everything that is pending, oldest first, and returns what it applied: nothing on a second run. Versions
/// newer than this binary are left alone.
///
/// # Errors
/// [`Error::Failed`] leaves everything before it applied. [`Error::RolesMissing`], [`Error::NotOwner`] and
/// [`Error::MayNotCreate`] call for [`crate::roles`]; [`Error::Locked`] for patience.
pub async fn up(client: &mut Client) -> Result<Vec<Applied>, Error> {
    up_to(client, migration::all(), migration::latest()).await
}

/// Takes back everything newer than `to`, newest first; 0 takes back all.
///
/// # Errors
/// As [`up`]; and [`Error::Unknown`], with nothing done, where a newer binary has applied what this one does not know.
pub async fn down(client: &mut Client, to: i32) -> Result<Vec<Applied>, Error> {
    down_to(client, migration::all(), to).await
}

/// [`up`] for any list, to `target` inclusive.
///
/// # Errors
/// As [`up`]; and [`Error::Target`] for a version that is not in the list.
pub async fn up_to(
    client: &mut Client,
    migrations: &[Migration],
    target: i32,
) -> Result<Vec<Applied>, Error> {
    check_target(migrations, target)?;
    start(client).await?;
    let applied = ascend(client, migrations, target).await;
    lock::release(client).await;
    applied
}

/// [`down`] for any list.
///
/// # Errors
/// As [`down`]; and [`Error::Target`] for a version that is not in the list.
pub async fn down_to(
    client: &mut Client,
    migrations: &[Migration],
    to: i32,
) -> Result<Vec<Applied>, Error> {
    check_target(migrations, to)?;
    start(client).await?;
    let applied = descend(client, migrations, to).await;
    lock::release(client).await;
    applied
}

async fn ascend(
    client: &mut Client,
    migrations: &[Migration],
    target: i32,
) -> Result<Vec<Applied>, Error> {
    let records = records(client).await?;
    verify(migrations, &records)?;
    let mut applied = Vec::new();
    for migration in migrations.iter().filter(|migration| migration.version <= target) {
        if records.iter().all(|record| record.version != migration.version) {
            applied.push(run(client, migration, Direction::Up).await?);
        }
    }
    Ok(applied)
}

async fn descend(
    client: &mut Client,
    migrations: &[Migration],
    to: i32,
) -> Result<Vec<Applied>, Error> {
    let records = records(client).await?;
    verify(migrations, &records)?;
    let latest = migration::newest(migrations);
    let unknown: Vec<_> =
        records.iter().map(|record| record.version).filter(|&version| version > latest).collect();
    if !unknown.is_empty() {
        return Err(Error::Unknown(unknown));
    }
    let mut applied = Vec::new();
    for migration in migrations.iter().rev().filter(|migration| migration.version > to) {
        if records.iter().any(|record| record.version == migration.version) {
            applied.push(run(client, migration, Direction::Down).await?);
        }
    }
    Ok(applied)
}

fn check_target(migrations: &[Migration], asked: i32) -> Result<(), Error> {
    let latest = migration::newest(migrations);
    if (0..=latest).contains(&asked) { Ok(()) } else { Err(Error::Target { asked, latest }) }
}

/// What is applied must be what we carry, and without holes.
fn verify(migrations: &[Migration], records: &[Record]) -> Result<(), Error> {
    let newest = records.last().map_or(0, |record| record.version);
    for migration in migrations.iter().filter(|migration| migration.version <= newest) {
        match records.iter().find(|record| record.version == migration.version) {
            None => {
                return Err(Error::OutOfOrder { missing: migration.version, applied: newest });
            }
            Some(record) if record.checksum != migration.checksum() => {
                let (version, name) = (migration.version, migration.name.to_owned());
                return Err(Error::Changed { version, name });
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Checks what can be checked without waiting, then waits for the lock.
async fn start(client: &mut Client) -> Result<(), Error> {
    let tx = client.transaction().await.map_err(Error::postgres("beginning to migrate"))?;
    check_rights(&tx).await?;
    tx.rollback().await.map_err(Error::postgres("beginning to migrate"))?;
    lock::acquire(client, lock::PATIENCE).await
}

async fn check_rights(tx: &Transaction<'_>) -> Result<(), Error> {
    let failed = Error::postgres("checking the database roles");
    let missing = tx
        .query(
            "SELECT wanted FROM unnest(ARRAY['sentryops_owner', 'sentryops_app', 'sentryops_auth',
                                             'sentryops_fleet']) AS wanted
             WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted)",
            &[],
        )
        .await
        .map_err(&failed)?;
    if !missing.is_empty() {
        return Err(Error::RolesMissing(missing.iter().map(|row| row.get("wanted")).collect()));
    }

    let session = tx
        .query_one("SELECT session_user::text AS login, current_database()::text AS base", &[])
        .await
        .map_err(&failed)?;
    match tx.batch_execute(LOCALS).await {
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            return Err(Error::NotOwner { login: session.get("login") });
        }
        other => other.map_err(&failed)?,
    }
    let may_create = tx
        .query_one("SELECT has_schema_privilege('public', 'CREATE') AS may_create", &[])
        .await
        .map_err(&failed)?;
    if may_create.get("may_create") {
        Ok(())
    } else {
        Err(Error::MayNotCreate { database: session.get("base") })
    }
}

async fn records(client: &mut Client) -> Result<Vec<Record>, Error> {
    let failed = Error::postgres("opening schema_migration");
    let tx = client.transaction().await.map_err(&failed)?;
    tx.batch_execute(LOCALS).await.map_err(&failed)?;
    let records = record::open(&tx).await?;
    tx.commit().await.map_err(&failed)?;
    Ok(records)
}

async fn run(
    client: &Client,
    migration: &Migration,
    direction: Direction,
) -> Result<Applied, Error> {
    match transact(client, migration, direction).await {
        Ok(elapsed) => {
            let Migration { version, name, .. } = *migration;
            info!(migration.version = version, "migrated {direction} {version:04} {name}");
            Ok(Applied { version, name, direction, elapsed })
        }
        Err(failure) => {
            // The failure is what counts; a connection that cannot roll back is gone, and its transaction with it.
            let _ = client.batch_execute("ROLLBACK").await;
            Err(Error::Failed(Box::new(failure)))
        }
    }
}

/// By hand and not by [`Transaction`], which cannot tell how many statements of a script completed.
async fn transact(
    client: &Client,
    migration: &Migration,
    direction: Direction,
) -> Result<Duration, Failure> {
    let failed = |done| move |source| Failure::new(migration, direction, done, source);
    client.batch_execute(&format!("BEGIN; {LOCALS}")).await.map_err(failed(None))?;

    let started = Instant::now();
    let mut done = 0;
    let script = client.simple_query_raw(migration.sql(direction)).await.map_err(failed(None))?;
    script
        .try_for_each(|message| {
            done += usize::from(matches!(message, SimpleQueryMessage::CommandComplete(_)));
            std::future::ready(Ok(()))
        })
        .await
        .map_err(|source| Failure::new(migration, direction, Some(done), source))?;
    let elapsed = started.elapsed();

    match direction {
        Direction::Up => {
            let execution_ms = i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX);
            record::insert(client, migration, execution_ms).await
        }
        Direction::Down => record::delete(client, migration).await,
    }
    .map_err(failed(None))?;
    client.batch_execute("COMMIT").await.map_err(failed(None))?;
    Ok(elapsed)
}
