//! Compares the migrations that are applied to a database with the migrations of this binary. Only reads, and does not
//! acquire the migration lock, so that the status is readable during a migration and with the application's login.

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
    /// Name of the migration in this binary, or in the database if this binary lacks the migration.
    pub name: String,
    /// State of the migration in the database.
    pub state: State,
}

/// State of a migration in a database, compared with this binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Applied with the same SQL as in this binary.
    Applied {
        /// Time at which the migration was applied.
        at: DateTime<Utc>,
    },
    /// Applied with different SQL than this binary has: `up` and `down` fail.
    Changed {
        /// Time at which the migration was applied.
        at: DateTime<Utc>,
    },
    /// Not applied to the database yet.
    Pending,
    /// Applied by a newer binary: `up` ignores the migration, `down` fails.
    Unknown {
        /// Time at which the migration was applied.
        at: DateTime<Utc>,
    },
}

/// Returns the states of all migrations of this binary and of the database, oldest first.
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

/// Returns the newest applied version, or `None` if no migration is applied. With the application's login, assumes a
/// role for the read. The caller may have an open transaction, in which the read uses a savepoint.
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
    tx.rollback().await.map_err(&failed)?; // also resets an assumed role
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
