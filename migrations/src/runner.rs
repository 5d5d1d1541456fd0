//! Applies and reverts migrations.
//!
//! Each migration runs in one transaction, together with the change of its row in `schema_migration`. Therefore a
//! migration is applied completely or not at all, and earlier migrations stay applied. A statement waits at most 3 s
//! for a lock, because a failed migration can be run again, but a waiting one blocks the whole application. All
//! statements run as the role `sentryops_owner`, whichever login is connected.
//!
//! All settings of a run are local to its transactions; only the advisory lock belongs to the session. A caller that
//! drops a future of this module before it completes must close the connection and not reuse it.

use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage, Transaction};
use tracing::info;

use crate::error::{Error, Failure};
use crate::lock;
use crate::migration::{self, Direction, Migration};
use crate::record::{self, Record};

/// Migration that was applied or reverted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Number of the migration, from 1.
    pub version: i32,
    /// Name of the migration, e.g. `asset`.
    pub name: &'static str,
    /// Direction in which the migration ran.
    pub direction: Direction,
    /// Duration of the migration's SQL, without the commit.
    pub elapsed: Duration,
}

// set_config() by name, because `transaction_timeout` is new in PostgreSQL 17, and SET would fail on older versions.
const TRANSACTION_SETTINGS: &str = "
    SET LOCAL ROLE sentryops_owner;
    SET LOCAL search_path = public;
    SET LOCAL lock_timeout = '3s';
    SELECT set_config(name, '0', true) FROM pg_settings
    WHERE name IN ('statement_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout');";

/// Applies all pending migrations, oldest first, and returns the migrations that this call applied. Migrations of a
/// newer binary stay unchanged.
///
/// # Errors
/// [`Error::Failed`]: earlier migrations stay applied. [`Error::RolesMissing`], [`Error::NotOwner`] and
/// [`Error::MayNotCreate`]: call [`crate::roles`] first. [`Error::Locked`]: retry later.
pub async fn up(client: &mut Client) -> Result<Vec<Applied>, Error> {
    up_to(client, migration::all(), migration::latest()).await
}

/// Reverts all migrations newer than `to`, newest first; 0 reverts all.
///
/// # Errors
/// The errors of [`up`]. [`Error::Unknown`], without any change, if a newer binary applied migrations that this binary
/// lacks.
pub async fn down(client: &mut Client, to: i32) -> Result<Vec<Applied>, Error> {
    down_to(client, migration::all(), to).await
}

/// Applies the pending migrations of a given list, up to and including `target`; otherwise like [`up`].
///
/// # Errors
/// The errors of [`up`]. [`Error::Target`] for a version that is not in the list.
pub async fn up_to(
    client: &mut Client,
    migrations: &[Migration],
    target: i32,
) -> Result<Vec<Applied>, Error> {
    check_target(migrations, target)?;
    check_and_lock(client).await?;
    let applied = apply_pending(client, migrations, target).await;
    lock::release(client).await;
    applied
}

/// Reverts those migrations of a given list that are newer than `to`; otherwise like [`down`].
///
/// # Errors
/// The errors of [`down`]. [`Error::Target`] for a version that is not in the list.
pub async fn down_to(
    client: &mut Client,
    migrations: &[Migration],
    to: i32,
) -> Result<Vec<Applied>, Error> {
    check_target(migrations, to)?;
    check_and_lock(client).await?;
    let applied = revert_newer(client, migrations, to).await;
    lock::release(client).await;
    applied
}

async fn apply_pending(
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

async fn revert_newer(
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

fn check_target(migrations: &[Migration], requested: i32) -> Result<(), Error> {
    let latest = migration::newest(migrations);
    if (0..=latest).contains(&requested) {
        Ok(())
    } else {
        Err(Error::Target { requested, latest })
    }
}

/// Checks that the applied migrations have no gaps and the same checksums as in the list.
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

/// Checks roles and privileges, which needs no lock, and then waits for the migration lock.
async fn check_and_lock(client: &mut Client) -> Result<(), Error> {
    let tx = client.transaction().await.map_err(Error::postgres("beginning to migrate"))?;
    check_rights(&tx).await?;
    tx.rollback().await.map_err(Error::postgres("beginning to migrate"))?;
    lock::acquire(client, lock::LOCK_TIMEOUT).await
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
    match tx.batch_execute(TRANSACTION_SETTINGS).await {
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
    tx.batch_execute(TRANSACTION_SETTINGS).await.map_err(&failed)?;
    let records = record::find_or_create(&tx).await?;
    tx.commit().await.map_err(&failed)?;
    Ok(records)
}

async fn run(
    client: &Client,
    migration: &Migration,
    direction: Direction,
) -> Result<Applied, Error> {
    match run_in_transaction(client, migration, direction).await {
        Ok(elapsed) => {
            let Migration { version, name, .. } = *migration;
            info!(migration.version = version, "migrated {direction} {version:04} {name}");
            Ok(Applied { version, name, direction, elapsed })
        }
        Err(failure) => {
            // The result is ignored: if the rollback fails, the connection was lost, and the server rolls back.
            let _ = client.batch_execute("ROLLBACK").await;
            Err(Error::Failed(Box::new(failure)))
        }
    }
}

/// Runs one migration in a transaction. Uses `BEGIN` and `COMMIT` as text instead of [`Transaction`], which does not
/// report the number of completed statements of a script.
async fn run_in_transaction(
    client: &Client,
    migration: &Migration,
    direction: Direction,
) -> Result<Duration, Failure> {
    let failed = |done| move |source| Failure::new(migration, direction, done, source);
    client.batch_execute(&format!("BEGIN; {TRANSACTION_SETTINGS}")).await.map_err(failed(None))?;

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
