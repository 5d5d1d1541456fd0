//! Workers, i.e. processes that claim jobs. Each start of a process has one row, which heartbeats keep up to date. The
//! rows of jobs contain the worker that runs them; this table lists the workers.
//!
//! A row contains the time of the last heartbeat. It does not prove that the worker is alive: only leases decide that.
//! A worker without a heartbeat for a minute is not listed. Its row is deleted after an hour, by the clean-up of any
//! worker. All times are Postgres' own, so the clocks of workers need not agree.

use async_graphql::SimpleObject;
use chrono::{DateTime, Utc};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    access::{directive::requires, permission::Permission},
    base::{
        db::{Fleet, FromRow, Tx},
        error::Result,
    },
    fleet::job::Queue,
};

/// A process that claims and runs jobs. Requires `FLEET_READ`.
#[derive(Debug, Clone, PartialEq, Eq, SimpleObject)]
#[graphql(directive = requires::apply(Permission::FleetRead))]
pub struct Worker {
    /// The worker's id, a new UUID at each start.
    pub id: String,
    /// Host name of the machine, as the machine reports it.
    pub host: String,
    /// Queues from which the worker claims jobs.
    pub queues: Vec<Queue>,
    /// Number of jobs that the worker had claimed at the last heartbeat, including prefetched jobs and jobs with an
    /// outcome that is not stored yet.
    pub running: i32,
    /// Maximum number of concurrent jobs, over all queues.
    pub capacity: i32,
    /// Version of SentryOps that the worker runs.
    pub version: String,
    /// Time at which the worker process started.
    pub started_at: DateTime<Utc>,
    /// Time of the worker's last heartbeat.
    pub last_seen_at: DateTime<Utc>,
    /// True if the worker is shutting down: it finishes its running jobs and claims no new ones.
    pub is_draining: bool,
}

impl FromRow for Worker {
    fn from_row(row: &Row) -> Result<Self> {
        let queues: Vec<&str> = row.try_get("queues")?;
        Ok(Self {
            id: row.try_get::<_, Uuid>("id")?.to_string(),
            host: row.try_get("host")?,
            // A newer worker may claim from a queue that this version does not know. List the worker without that
            // queue.
            queues: queues.into_iter().filter_map(|queue| Queue::from_column(queue).ok()).collect(),
            running: row.try_get("running")?,
            capacity: row.try_get("capacity")?,
            version: row.try_get("version")?,
            started_at: row.try_get("started_at")?,
            last_seen_at: row.try_get("last_seen_at")?,
            is_draining: row.try_get("is_draining")?,
        })
    }
}

/// Values of a worker to register at the start of its process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewWorker {
    /// Id generated at this start. The rows of claimed jobs contain it.
    pub id: Uuid,
    /// Host name of the machine, as the machine reports it.
    pub host: String,
    /// Version of SentryOps that the worker runs.
    pub version: String,
    /// Queues from which the worker claims jobs.
    pub queues: Vec<Queue>,
    /// Maximum number of concurrent jobs, over all queues.
    pub capacity: i32,
}

impl Worker {
    /// Inserts the worker's row. If the row exists, updates it and clears `is_draining`. A worker whose row was
    /// deleted, because it could not send heartbeats, registers again.
    pub async fn register(tx: &Tx<Fleet>, new: &NewWorker) -> Result<()> {
        let queues: Vec<&str> = new.queues.iter().map(|queue| queue.as_str()).collect();
        tx.exec(
            "INSERT INTO worker (id, host, version, queues, running, capacity, started_at, last_seen_at)
             VALUES ($1, $2, $3, $4, 0, $5, now(), now())
             ON CONFLICT (id) DO UPDATE
             SET host = $2, version = $3, queues = $4, capacity = $5, is_draining = false, last_seen_at = now()",
            &[&new.id, &new.host, &new.version, &queues, &new.capacity],
        )
        .await?;
        Ok(())
    }

    /// Writes a heartbeat with the number of running jobs. Returns false if the worker has no row and must register
    /// again.
    pub async fn heartbeat(
        tx: &Tx<Fleet>,
        id: Uuid,
        running: i32,
        is_draining: bool,
    ) -> Result<bool> {
        let rows = tx
            .exec(
                "UPDATE worker SET running = $2, is_draining = $3, last_seen_at = now() WHERE id = $1",
                &[&id, &running, &is_draining],
            )
            .await?;
        Ok(rows == 1)
    }

    /// Deletes the row of a worker that shuts down cleanly.
    pub async fn deregister(tx: &Tx<Fleet>, id: Uuid) -> Result<()> {
        tx.exec("DELETE FROM worker WHERE id = $1", &[&id]).await?;
        Ok(())
    }

    /// Returns the workers with a heartbeat within the last minute, the earliest start first.
    pub async fn list(tx: &Tx<Fleet>) -> Result<Vec<Self>> {
        tx.all(
            "SELECT id, host, version, queues, running, capacity, is_draining, started_at, last_seen_at FROM worker
             WHERE last_seen_at > now() - interval '1 minute' ORDER BY started_at, id",
            &[],
        )
        .await
    }

    /// Deletes stale workers, i.e. those without a heartbeat for an hour. Returns the number of rows deleted.
    pub async fn delete_stale(tx: &Tx<Fleet>) -> Result<u64> {
        tx.exec("DELETE FROM worker WHERE last_seen_at < now() - interval '1 hour'", &[]).await
    }
}
