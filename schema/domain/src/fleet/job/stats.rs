//! Statistics of queues, for one organization or the whole installation.

use async_graphql::SimpleObject;
use tokio_postgres::Row;

use super::{Job, Queue};
use crate::{
    access::{directive::requires, permission::Permission},
    base::{
        db::{Fleet, FromRow, Kind, Tx},
        error::Result,
    },
};

/// Statistics of one queue. Requires `JOB_READ`.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
#[graphql(directive = requires::apply(Permission::JobRead))]
pub struct QueueStats {
    /// The queue that the numbers describe.
    pub queue: Queue,
    /// Number of jobs that are ready for a worker.
    pub waiting: i64,
    /// Number of jobs that wait for the time in `runAt`, including retries and snoozed (postponed) jobs.
    pub scheduled: i64,
    /// Number of jobs that workers have claimed: those that are running, and prefetched ones that start next.
    pub running: i64,
    /// Number of buried (dead-lettered) jobs. They failed permanently, and stay until a user retries or discards them.
    pub buried: i64,
    /// Time for which the oldest waiting job has been ready, in seconds; null if no job is waiting.
    pub oldest_waiting_seconds: Option<f64>,
    /// Number of jobs that succeeded per minute, averaged over the last five minutes.
    pub done_per_minute: f64,
    /// Number of jobs that were buried (dead-lettered) per minute, averaged over the last five minutes. Failed attempts
    /// that are retried do not count, nor do jobs that a user has retried or discarded since.
    pub failed_per_minute: f64,
}

impl FromRow for QueueStats {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            queue: Queue::from_column(row.try_get("queue")?)?,
            waiting: row.try_get("waiting")?,
            scheduled: row.try_get("scheduled")?,
            running: row.try_get("running")?,
            buried: row.try_get("buried")?,
            oldest_waiting_seconds: row.try_get("oldest_waiting_seconds")?,
            done_per_minute: row.try_get("done_per_minute")?,
            failed_per_minute: row.try_get("failed_per_minute")?,
        })
    }
}

impl QueueStats {
    /// Returns the statistics of every queue, including empty ones. They cover the organization of the transaction, or
    /// all organizations in a transaction of `Db::fleet`.
    pub async fn list<K: Kind>(tx: &Tx<K>) -> Result<Vec<Self>> {
        let queues: Vec<&str> = Queue::ALL.iter().map(|queue| queue.as_str()).collect();
        tx.all(
            "WITH live AS (
                 SELECT queue,
                        count(*) FILTER (WHERE state = 'WAITING') AS waiting,
                        count(*) FILTER (WHERE state = 'SCHEDULED') AS scheduled,
                        count(*) FILTER (WHERE state = 'RUNNING') AS running,
                        count(*) FILTER (WHERE state = 'BURIED') AS buried,
                        count(*) FILTER (WHERE state = 'BURIED' AND changed_at > now() - interval '5 minutes') AS failed,
                        min(run_at) FILTER (WHERE state = 'WAITING') AS oldest
                 FROM job GROUP BY queue),
             past AS (
                 SELECT queue, count(*) AS done FROM job_history
                 WHERE finished_at > now() - interval '5 minutes' AND outcome = 'SUCCEEDED' GROUP BY queue)
             SELECT queue, coalesce(waiting, 0) AS waiting, coalesce(scheduled, 0) AS scheduled,
                    coalesce(running, 0) AS running, coalesce(buried, 0) AS buried,
                    CASE WHEN oldest IS NOT NULL THEN greatest(extract(epoch FROM now() - oldest), 0)::float8 END
                        AS oldest_waiting_seconds,
                    coalesce(done, 0) / 5.0::float8 AS done_per_minute,
                    coalesce(failed, 0) / 5.0::float8 AS failed_per_minute
             FROM unnest($1::text[]) WITH ORDINALITY AS known (queue, place)
             LEFT JOIN live USING (queue) LEFT JOIN past USING (queue) ORDER BY place",
            &[&queues],
        )
        .await
    }
}

impl Job {
    /// Returns the number of jobs of all organizations that are ready for a worker, counted up to `max`.
    pub async fn count_waiting(tx: &Tx<Fleet>, max: i64) -> Result<i64> {
        // The condition on suspects, of which there are few, lets the index of the ready jobs answer.
        let sql = "SELECT count(*) AS waiting FROM
                       (SELECT 1 FROM job WHERE state = 'WAITING' AND NOT is_suspect LIMIT $1) AS waiting";
        let row: Row = tx.one(sql, &[&max]).await?;
        Ok(row.try_get("waiting")?)
    }
}
