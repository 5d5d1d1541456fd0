//! Compares the migrations applied to a database with those of this binary. Only reads, and does not take the migration
//! lock: the status must be readable during a migration, and with the application's login.

use chrono::{DateTime, Utc};
use tokio_postgres::{Client, GenericClient};

use crate::error::Error;
use crate::migration::{self, Migration};
use crate::record::{self, Record};

/// State of one migration in a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Number of the migration, from 1.
    pub version: i32,
    /// Name in this binary, or in the database if this binary lacks the migration.
    pub name: String,
    /// Applied, changed, pending or unknown.
    pub state: State,
}

/// State of a migration: applied or not, and equal to the one in this binary or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Applied with the same SQL as in this binary.
    Applied {
        /// Time at which it was applied.
        at: DateTime<Utc>,
    },
    /// Applied with different SQL than this binary has: `up` and `down` fail.
    Changed {
        /// Time at which it was applied.
        at: DateTime<Utc>,
    },
    /// Not applied to the database yet.
    Pending,
    /// Applied by a newer binary: `up` ignores it, `down` fails.
    Unknown {
        /// Time at which it was applied.
        at: DateTime<Utc>,
    },
}

/// Returns all migrations of this binary and of the database, oldest first.
pub async fn status(client: &mut Client) -> Result<Vec<Status>, Error> {
    status_of(client, migration::all()).await
}

/// Returns the same as [`status`] for any list of migrations.
pub async fn status_of(
    client: &mut Client,
    migrations: &[Migration],
) -> Result<Vec<Status>, Error> {
    Ok(compare(migrations, &records(client).await?))
}

/// Returns the newest applied version, or `None` if no migration is applied. Works with the application's login, for
/// which it assumes a role during this read. Works outside a transaction and inside one, where it rolls back to a
/// savepoint.
///
/// # Errors
/// [`Error::Postgres`], also if the login is not a member of any SentryOps role.
pub async fn version(client: &mut impl GenericClient) -> Result<Option<i32>, Error> {
    Ok(records(client).await?.last().map(|record| record.version))
}

async fn records(client: &mut impl GenericClient) -> Result<Vec<Record>, Error> {
    let failed = Error::postgres("reading the version of the schema");
    let tx = client.transaction().await.map_err(&failed)?;
    let records = record::find(&tx).await?;
    tx.rollback().await.map_err(&failed)?; // resets the role that was assumed
    Ok(records.unwrap_or_default())
}

fn compare(migrations: &[Migration], records: &[Record]) -> Vec<Status> {
    let known = migrations.iter().map(|migration| {
        let state = match records.iter().find(|record| record.version == migration.version) {
            None => State::Pending,
            Some(record) if record.checksum == migration.checksum() => {
                State::Applied { at: record.applied_at }
            }
            Some(record) => State::Changed { at: record.applied_at },
        };
        Status { version: migration.version, name: migration.name.to_owned(), state }
    });
    let unknown = records
        .iter()
        .filter(|record| migrations.iter().all(|migration| migration.version != record.version))
        .map(|record| Status {
            version: record.version,
            name: record.name.clone(),
            state: State::Unknown { at: record.applied_at },
        });
    let mut all: Vec<_> = known.chain(unknown).collect();
    all.sort_by_key(|status| status.version);
    all
}
