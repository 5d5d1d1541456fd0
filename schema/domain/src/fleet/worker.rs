//! A process that takes jobs: one row a boot, which beats. What runs where is in the jobs; here is who is there.
//!
//! A row says what was last heard, never that somebody lives: leases decide that. So nobody who is silent for a minute
//! is shown, and silent rows are removed after an hour by whoever comes by. All times are Postgres' own: workers' clocks
//! need not agree.

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

/// A process that takes jobs. Takes `FLEET_READ`.
#[derive(Debug, Clone, PartialEq, Eq, SimpleObject)]
#[graphql(directive = requires::apply(Permission::FleetRead))]
pub struct Worker {
    /// Its id: a new one at each start.
    pub id: String,
    /// The machine it runs on, as it calls itself.
    pub host: String,
    /// What it takes.
    pub queues: Vec<Queue>,
    /// Jobs it was running when it was last seen.
    pub running: i32,
    /// Jobs it runs at once at most.
    pub capacity: i32,
    /// The version of SentryOps it runs.
    pub version: String,
    /// When it started.
    pub started_at: DateTime<Utc>,
    /// When it was last seen.
    pub last_seen_at: DateTime<Utc>,
    /// Whether it finishes what it has and takes nothing new.
    pub is_draining: bool,
}

impl FromRow for Worker {
    fn from_row(row: &Row) -> Result<Self> {
        let queues: Vec<&str> = row.try_get("queues")?;
        Ok(Self {
            id: row.try_get::<_, Uuid>("id")?.to_string(),
            host: row.try_get("host")?,
            // A newer worker may take from a queue that we do not know: no reason to show no worker.
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

/// A worker that starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewWorker {
    /// Made for this start; leases carry it.
    pub id: Uuid,
    /// The machine it runs on, as it calls itself.
    pub host: String,
    /// The version of SentryOps it runs.
    pub version: String,
    /// What it takes.
    pub queues: Vec<Queue>,
    /// Jobs it runs at once at most.
    pub capacity: i32,
}

impl Worker {
    /// Makes it known. Again, it is as if it had just started: for one that was forgotten while it could not beat.
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

    /// RuleText that it is there and what it does. `false` where it is not known (any more): it registers again.
    pub async fn beat(tx: &Tx<Fleet>, id: Uuid, running: i32, is_draining: bool) -> Result<bool> {
        let known = tx
            .exec(
                "UPDATE worker SET running = $2, is_draining = $3, last_seen_at = now() WHERE id = $1",
                &[&id, &running, &is_draining],
            )
            .await?;
        Ok(known == 1)
    }

    /// It stops in good order.
    pub async fn leave(tx: &Tx<Fleet>, id: Uuid) -> Result<()> {
        tx.exec("DELETE FROM worker WHERE id = $1", &[&id]).await?;
        Ok(())
    }

    /// Those seen within the last minute, the longest-running first.
    pub async fn list(tx: &Tx<Fleet>) -> Result<Vec<Self>> {
        tx.all(
            "SELECT id, host, version, queues, running, capacity, is_draining, started_at, last_seen_at FROM worker
             WHERE last_seen_at > now() - interval '1 minute' ORDER BY started_at, id",
            &[],
        )
        .await
    }

    /// Removes those that were silent for an hour; returns how many.
    pub async fn forget(tx: &Tx<Fleet>) -> Result<u64> {
        tx.exec("DELETE FROM worker WHERE last_seen_at < now() - interval '1 hour'", &[]).await
    }
}
