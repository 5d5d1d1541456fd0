//! Advisory lock that allows one migration run at a time per database.
//!
//! The database session holds the lock, so the lock spans all transactions of a run, and the server releases it if the
//! process ends. No table is locked, so readers are never blocked.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tracing::warn;

use crate::error::{Error, Holder};

/// Maximum time for which `up` and `down` wait for another run to end.
pub(crate) const LOCK_TIMEOUT: Duration = Duration::from_mins(1);

const KEY: i64 = i64::from_be_bytes(*b"sentryop");

/// Acquires the lock, or returns [`Error::Locked`] after `timeout`. A run that waited for another run usually finds no
/// pending migration.
pub(crate) async fn acquire(client: &mut Client, timeout: Duration) -> Result<(), Error> {
    let failed = Error::postgres("waiting for the migration lock");
    let tx = client.transaction().await.map_err(&failed)?;
    tx.batch_execute(&format!(
        "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = {}",
        timeout.as_millis(),
    ))
    .await
    .map_err(&failed)?;
    let acquired = tx.execute("SELECT pg_advisory_lock($1)", &[&KEY]).await;
    tx.rollback().await.map_err(&failed)?; // does not release the lock, which belongs to the session
    match acquired {
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            Err(Error::Locked { waited: timeout, holder: holder(client).await? })
        }
        Err(error) => Err(failed(error)),
    }
}

/// Releases the lock. Only logs a failure, because a failure means that the connection was lost, and the server then
/// releases the lock.
pub(crate) async fn release(client: &Client) {
    if let Err(error) = client.execute("SELECT pg_advisory_unlock($1)", &[&KEY]).await {
        warn!(error = %error, "could not release the migration lock: {error}");
    }
}

async fn holder(client: &Client) -> Result<Option<Holder>, Error> {
    let row = client
        .query_opt(
            "SELECT lock.pid, COALESCE(activity.application_name, '') AS application_name
             FROM pg_locks AS lock
             JOIN pg_database AS base ON base.oid = lock.database
             LEFT JOIN pg_stat_activity AS activity ON activity.pid = lock.pid
             WHERE lock.locktype = 'advisory' AND lock.granted AND base.datname = current_database()
               AND lock.objsubid = 1
               AND lock.classid::bigint = $1::bigint >> 32 AND lock.objid::bigint = $1::bigint & 4294967295
             LIMIT 1",
            &[&KEY],
        )
        .await
        .map_err(Error::postgres("looking for the holder of the migration lock"))?;
    Ok(row.map(|row| Holder { pid: row.get("pid"), application_name: row.get("application_name") }))
}

#[cfg(test)]
mod tests {
    use tokio_postgres::{Config, NoTls};

    use super::*;

    async fn session(name: &str) -> Client {
        let url = std::env::var("TEST_ADMIN_URL").expect(
            "TEST_ADMIN_URL is not set: run these tests under `sentryops services -- cargo test`",
        );
        let config: Config = url.parse().unwrap();
        let (client, connection) =
            config.clone().application_name(name).connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Uses the default database of the administrator, in which no other test runs migrations.
    #[tokio::test]
    async fn who_waits_too_long_learns_for_whom() {
        let (mut first, mut second) = (session("the first").await, session("the second").await);
        acquire(&mut first, LOCK_TIMEOUT).await.unwrap();
        let error = acquire(&mut second, Duration::from_millis(50)).await.unwrap_err();
        assert!(error.to_string().contains("(application_name 'the first')"), "{error}");
        assert!(matches!(error, Error::Locked { holder: Some(holder), .. } if holder.pid > 0));

        release(&first).await;
        acquire(&mut second, Duration::from_millis(50)).await.unwrap();
    }
}
