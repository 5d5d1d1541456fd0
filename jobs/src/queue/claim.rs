//! SQL statements that claim jobs from a queue, and that promote scheduled jobs.
//!
//! A claim skips rows that another transaction has locked (`SKIP LOCKED`), so workers never wait for each other. A
//! *suspect* is a job whose worker died while the job ran, and that has at most two attempts left. A process claims at
//! most one suspect per queue at a time. Otherwise a job that kills its process would use up the attempts of other
//! suspects, until those are buried (dead-lettered), too.

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

/// Columns of a job that this process has claimed, as the claiming statement returned them.
#[derive(Debug, Clone)]
pub struct ClaimedRow {
    /// Identity of the claim, with its fencing token.
    pub lease: Lease,
    /// Queue from which the job was claimed.
    pub queue: Queue,
    /// Job kind, e.g. `scan.shard`; it selects the handler.
    pub kind: String,
    /// Version in which the payload is stored.
    pub version: i16,
    /// The serialized job, as JSON.
    pub payload: Value,
    /// Number of attempts started so far, including this one.
    pub attempt: i16,
    /// Number of attempts after which the job is buried if it has failed.
    pub max_attempts: i16,
    /// Actor on whose behalf the job runs.
    pub actor: Actor,
    /// Permission that the actor must have when the attempt starts; `None` if no permission is required.
    pub permission: Option<Permission>,
    /// Time at which the job was enqueued.
    pub queued_at: DateTime<Utc>,
    /// True if the job is a suspect, i.e. may have killed its last worker.
    pub is_suspect: bool,
    /// Sort key: priority (negated), time before which the job does not run, id.
    order: (i32, DateTime<Utc>, JobId),
}

impl FromRow for ClaimedRow {
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

/// A worker process that claims from one queue: its id, and the job kinds that it can handle.
#[derive(Debug, Clone)]
pub struct Claimant {
    /// Id of the worker process, new at each start.
    pub worker: Uuid,
    /// Queue from which jobs are claimed.
    pub queue: Queue,
    /// Job kinds that the process can handle.
    pub kinds: Vec<String>,
    /// Payload version for each entry of `kinds`, at the same index.
    pub versions: Vec<i16>,
    /// Time after which a claim expires unless it is renewed.
    pub lease: Duration,
}

/// Returns the statement that claims the rows selected by `condition`. It finds the rows by their physical location
/// (`ctid`). Postgres would plan a join by its statistics, which may still describe an empty queue.
fn claim_sql(condition: &str) -> String {
    format!(
        "UPDATE job SET state = 'RUNNING', lease_until = now() + $3::bigint * interval '1 ms', worker = $4,
                        attempt = attempt + 1, fence = fence + 1, started_at = now(), changed_at = now()
         WHERE ctid = ANY (ARRAY(
             SELECT ctid FROM job
             WHERE queue = $1 AND state = 'WAITING' AND (permission IS NULL OR permission = ANY ($7)) AND (kind, version) IN (SELECT kind, version FROM unnest($5::text[], $6::smallint[]) AS known (kind, version))
               AND {condition} LIMIT $2 FOR UPDATE SKIP LOCKED))
         RETURNING org_id, id, fence, queue, kind, version, payload, attempt, max_attempts,
                   actor_kind, actor_id, permission, queued_at, priority, run_at, is_suspect"
    )
}

impl Claimant {
    /// Claims up to `limit` jobs that are not suspects: highest priority first, then earliest `run_at`.
    pub async fn claim(&self, tx: &Tx<Fleet>, limit: usize) -> Result<Vec<ClaimedRow>> {
        self.fetch(tx, &claim_sql("NOT is_suspect ORDER BY priority DESC, run_at, id"), limit).await
    }

    /// Claims the suspect with the earliest `run_at`; `None` if no suspect is ready.
    pub async fn claim_suspect(&self, tx: &Tx<Fleet>) -> Result<Option<ClaimedRow>> {
        Ok(self.fetch(tx, &claim_sql("is_suspect ORDER BY run_at, id"), 1).await?.pop())
    }

    async fn fetch(&self, tx: &Tx<Fleet>, sql: &str, limit: usize) -> Result<Vec<ClaimedRow>> {
        let mut claimed: Vec<ClaimedRow> = tx
            .all(
                sql,
                &[
                    &self.queue.as_str(),
                    &i64::try_from(limit).unwrap_or(i64::MAX),
                    &millis(self.lease),
                    &self.worker,
                    &self.kinds,
                    &self.versions,
                    // A job with a permission that this version does not know is left to newer workers, like a job of
                    // an unknown kind.
                    &Permission::ALL.iter().map(|known| known.as_str()).collect::<Vec<_>>(),
                ],
            )
            .await?;
        claimed.sort_unstable_by_key(|claimed| claimed.order);
        Ok(claimed)
    }
}

/// Makes scheduled jobs that are due ready for a worker (`WAITING`), at most 1,000 per call. Returns the number of
/// promoted jobs, and the time until the next scheduled job is due. That time is `None` if no job of the queue is
/// scheduled.
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
