//! Taking jobs from a queue, in SQL: claim, promote.
//!
//! A claim takes rows that nobody else is taking (`SKIP LOCKED`), so workers never wait for each other. A job that ended
//! with its worker and has few attempts left is a suspect: it is claimed alone, so that what kills its process cannot take
//! the same neighbours with it again and again until they are buried too.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::{
    Actor, Error, Result, Tx,
    access::permission::Permission,
    base::db::{Fleet, FromRow},
    entity::JobId,
    fleet::job::Queue,
};
use serde_json::Value;
use uuid::Uuid;

use crate::queue::lease::{Lease, millis};

/// A job that this process has claimed.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The claim.
    pub lease: Lease,
    /// Its queue.
    pub queue: Queue,
    /// What is to be done.
    pub kind: String,
    /// The version of its payload.
    pub version: i16,
    /// Its payload.
    pub payload: Value,
    /// Starts so far, this one included.
    pub attempt: i16,
    /// Starts after which it is buried.
    pub max_attempts: i16,
    /// On whose behalf.
    pub actor: Actor,
    /// What the actor must still be allowed to do.
    pub permission: Option<Permission>,
    /// When it was pushed.
    pub queued_at: DateTime<Utc>,
    /// Whether it may be what kills workers.
    pub is_suspect: bool,
    order: (i32, DateTime<Utc>, JobId),
}

impl FromRow for Claimed {
    fn from_row(row: &tokio_postgres::Row) -> Result<Self> {
        let lease = Lease {
            org: row.try_get("org_id")?,
            id: row.try_get("id")?,
            fence: row.try_get("fence")?,
        };
        let permission: Option<&str> = row.try_get("permission")?;
        Ok(Self {
            queue: Queue::from_column(row.try_get("queue")?)?,
            kind: row.try_get("kind")?,
            version: row.try_get("version")?,
            payload: row.try_get("payload")?,
            attempt: row.try_get("attempt")?,
            max_attempts: row.try_get("max_attempts")?,
            actor: Actor::from_columns(row.try_get("actor_kind")?, row.try_get("actor_id")?)
                .ok_or(Error::Corrupt { table: "job", column: "actor_kind" })?,
            permission: permission
                .map(|name| {
                    Permission::parse(name)
                        .ok_or(Error::Corrupt { table: "job", column: "permission" })
                })
                .transpose()?,
            queued_at: row.try_get("queued_at")?,
            is_suspect: row.try_get("is_suspect")?,
            order: (-row.try_get::<_, i32>("priority")?, row.try_get("run_at")?, lease.id),
            lease,
        })
    }
}

/// Whom a claim is for, and what it can do.
#[derive(Debug, Clone)]
pub struct Claimant {
    /// The worker process, of this boot.
    pub worker: Uuid,
    /// The queue.
    pub queue: Queue,
    /// The kinds it knows.
    pub kinds: Vec<String>,
    /// Their versions, side by side with the kinds.
    pub versions: Vec<i16>,
    /// How long a claim lasts unless renewed.
    pub lease: Duration,
}

/// A claim of the rows that `chosen` leads to. By their place in the table: a join would be planned by statistics, which
/// know nothing of a queue that was empty a minute ago.
fn claiming(chosen: &str) -> String {
    format!(
        "UPDATE job SET state = 'RUNNING', lease_until = now() + $3::bigint * interval '1 ms', worker = $4,
                        attempt = attempt + 1, fence = fence + 1, started_at = now(), changed_at = now()
         WHERE ctid = ANY (ARRAY(
             SELECT ctid FROM job
             WHERE queue = $1 AND state = 'WAITING' AND (permission IS NULL OR permission = ANY ($7)) AND (kind, version) IN (SELECT kind, version FROM unnest($5::text[], $6::smallint[]) AS known (kind, version))
               AND {chosen} LIMIT $2 FOR UPDATE SKIP LOCKED))
         RETURNING org_id, id, fence, queue, kind, version, payload, attempt, max_attempts,
                   actor_kind, actor_id, permission, queued_at, priority, run_at, is_suspect"
    )
}

impl Claimant {
    /// Up to `most` jobs in the order of the queue.
    pub async fn claim(&self, tx: &Tx<Fleet>, most: usize) -> Result<Vec<Claimed>> {
        self.take(tx, &claiming("NOT is_suspect ORDER BY priority DESC, run_at, id"), most).await
    }

    /// One suspect, if there is any.
    pub async fn claim_suspect(&self, tx: &Tx<Fleet>) -> Result<Option<Claimed>> {
        Ok(self.take(tx, &claiming("is_suspect ORDER BY run_at, id"), 1).await?.pop())
    }

    async fn take(&self, tx: &Tx<Fleet>, sql: &str, most: usize) -> Result<Vec<Claimed>> {
        let mut claimed: Vec<Claimed> = tx
            .all(
                sql,
                &[
                    &self.queue.as_str(),
                    &i64::try_from(most).unwrap_or(i64::MAX),
                    &millis(self.lease),
                    &self.worker,
                    &self.kinds,
                    &self.versions,
                    // A right that only a newer version knows is left to it, as an unknown kind is.
                    &Permission::ALL.iter().map(|known| known.as_str()).collect::<Vec<_>>(),
                ],
            )
            .await?;
        claimed.sort_unstable_by_key(|claimed| claimed.order);
        Ok(claimed)
    }
}

/// Makes waiting what was scheduled for a time that has come; returns how many, and how long until the next.
pub async fn promote(tx: &Tx<Fleet>, queue: Queue) -> Result<(u64, Option<Duration>)> {
    let queue = queue.as_str();
    let promoted = tx.exec(
        "UPDATE job SET state = 'WAITING', changed_at = now()
         FROM (SELECT org_id, id FROM job WHERE queue = $1 AND state = 'SCHEDULED' AND run_at <= now()
               ORDER BY run_at LIMIT 1000 FOR UPDATE SKIP LOCKED) AS due
         WHERE job.org_id = due.org_id AND job.id = due.id",
        &[&queue],
    )
    .await?;
    let row: tokio_postgres::Row = tx
        .one(
            "SELECT ceil(extract(epoch FROM min(run_at) - now()) * 1000)::bigint AS wait_ms
             FROM job WHERE queue = $1 AND state = 'SCHEDULED'",
            &[&queue],
        )
        .await?;
    let wait: Option<i64> = row.try_get("wait_ms")?;
    Ok((promoted, wait.map(|wait| Duration::from_millis(wait.max(0).unsigned_abs()))))
}
