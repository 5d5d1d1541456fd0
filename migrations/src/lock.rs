//! Advisory lock that allows one run at a time per database. It is held by the session, so it spans all transactions of
//! a run, and the server releases it if the process dies. It locks no table, so it never blocks readers.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tracing::warn;

use crate::error::{Error, Holder};

/// Maximum time for which `up` and `down` wait for another run to end.
pub(crate) const LOCK_TIMEOUT: Duration = Duration::from_mins(1);

const KEY: i64 = i64::from_be_bytes(*b"sentryop");

/// Acquires the lock, or returns [`Error::Locked`] with its holder. A run that waited finds nothing left to do.
pub(crate) async fn acquire(client: &mut Client, patience: Duration) -> Result<(), Error> {
    let failed = Error::postgres("waiting for the migration lock");
    let tx = client.transaction().await.map_err(&failed)?;
    tx.batch_execute(&format!(
        "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = {}",
        patience.as_millis(),
    ))
    .await
    .map_err(&failed)?;
    let taken = tx.execute("SELECT pg_advisory_lock($1)", &[&KEY]).await;
    tx.rollback().await.map_err(&failed)?; // does not release the lock, which belongs to the session
    match taken {
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            Err(Error::Locked { waited: patience, holder: holder(client).await? })
        }
        Err(error) => Err(failed(error)),
    }
}

/// Releases the lock. If this fails, the connection is broken and the server has released the lock already.
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

    /// Uses the administrator's own database, where no other test migrates.
    #[tokio::test]
    async fn who_waits_too_long_learns_for_whom() {
        let (mut one, mut other) = (session("the first").await, session("the second").await);
        acquire(&mut one, LOCK_TIMEOUT).await.unwrap();
        let error = acquire(&mut other, Duration::from_millis(50)).await.unwrap_err();
        assert!(error.to_string().contains("(application_name 'the first')"), "{error}");
        assert!(matches!(error, Error::Locked { holder: Some(holder), .. } if holder.pid > 0));

        release(&one).await;
        acquire(&mut other, Duration::from_millis(50)).await.unwrap();
    }
}
