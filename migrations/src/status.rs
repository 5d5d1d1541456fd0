//! What a database has, compared with what this binary carries. Only reads, without the migration lock: looking at a
//! database must work while it is being migrated, and with the application's login.

use chrono::{DateTime, Utc};
use tokio_postgres::{Client, GenericClient};

use crate::error::Error;
use crate::migration::{self, Migration};
use crate::record::{self, Record};

/// One migration, as the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Its number.
    pub version: i32,
    /// Its name: this binary's, or where it knows none the database's.
    pub name: String,
    /// Whether it is applied.
    pub state: State,
}

/// Whether a migration is applied, and is the one we carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Applied, and the same as in this binary.
    Applied {
        /// When.
        at: DateTime<Utc>,
    },
    /// Applied, but with other SQL than this binary has: `up` and `down` refuse.
    Changed {
        /// When.
        at: DateTime<Utc>,
    },
    /// Not applied yet.
    Pending,
    /// Applied by a newer binary: `up` lets it be, `down` refuses.
    Unknown {
        /// When.
        at: DateTime<Utc>,
    },
}

/// Every migration that this binary or the database knows, oldest first.
pub async fn status(client: &mut Client) -> Result<Vec<Status>, Error> {
    status_of(client, migration::all()).await
}

/// [`status`] for any list.
pub async fn status_of(
    client: &mut Client,
    migrations: &[Migration],
) -> Result<Vec<Status>, Error> {
    Ok(compare(migrations, &records(client).await?))
}

/// The newest applied version, or `None` where nothing is. Works for the application's login (it takes a role for this
/// one read), inside of a transaction (as a savepoint, undone) and outside.
///
/// # Errors
/// [`Error::Postgres`] also where the login is a member of none of our roles.
pub async fn version(client: &mut impl GenericClient) -> Result<Option<i32>, Error> {
    Ok(records(client).await?.last().map(|record| record.version))
}

async fn records(client: &mut impl GenericClient) -> Result<Vec<Record>, Error> {
    let failed = Error::postgres("reading the version of the schema");
    let tx = client.transaction().await.map_err(&failed)?;
    let records = record::find(&tx).await?;
    tx.rollback().await.map_err(&failed)?; // gives back the role that was taken
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
