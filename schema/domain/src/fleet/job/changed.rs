//! Recently changed jobs of an organization, as sent by the subscription.
//!
//! Neither `job` nor `job_history` has an index on the time of change per organization: its maintenance would slow down
//! every claim and acknowledgement. Chosen: queries that use existing indexes. They return new jobs; running, scheduled
//! and buried jobs; and ended jobs that were enqueued recently or that the caller saw alive. Of each group, they return
//! the latest. Given up: jobs that return to waiting, which appear when they run again; a job that waited for a long
//! time and then ran between two polls; and all but the latest of many changes.

use chrono::{DateTime, TimeDelta, Utc};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Job, Queue};
use crate::base::{
    db::{FromRow, Tx},
    error::Result,
};

/// Maximum number of jobs per poll.
pub const MAX_JOBS: i64 = 100;

/// Maximum age of an ended job that is returned although the caller never saw it alive.
const RECENT: TimeDelta = TimeDelta::minutes(1);

/// Result of one poll: the changed jobs, the latest last.
#[derive(Debug)]
pub struct ChangedJobs {
    /// The jobs, each with the time of its last change.
    pub jobs: Vec<(DateTime<Utc>, Job)>,
    /// Postgres' time at this poll; pass it as `since` to the next poll.
    pub at: DateTime<Utc>,
}

const COLUMNS: &str = "id, queue, kind, priority, attempt, max_attempts, run_at, queued_at, started_at, error, worker, actor_kind, actor_id, subject";

impl Job {
    /// Returns the jobs that changed after `since`, at most [`MAX_JOBS`]. Returns none on the first poll, in which
    /// `since` is `None`. `alive` contains the ids of jobs that had not ended when the caller last saw them; their end
    /// is returned in any case.
    pub async fn changed(
        tx: &Tx,
        queue: Option<Queue>,
        since: Option<DateTime<Utc>>,
        alive: &[Uuid],
    ) -> Result<ChangedJobs> {
        let at = tx.one::<Row>("SELECT now() AS at", &[]).await?.try_get("at")?;
        let Some(since) = since else { return Ok(ChangedJobs { jobs: Vec::new(), at }) };
        let live = format!(
            "SELECT {COLUMNS}, is_cancelling, state, NULL::timestamptz AS finished_at, changed_at FROM job
             WHERE changed_at > $1 AND ($3::text IS NULL OR queue = $3)"
        );
        let ended = format!(
            "SELECT {COLUMNS}, false AS is_cancelling, outcome AS state, finished_at, finished_at AS changed_at FROM job_history
             WHERE finished_at > $1 AND ($3::text IS NULL OR queue = $3)"
        );
        let latest = format!("ORDER BY changed_at DESC, id LIMIT {MAX_JOBS}");
        let sql = format!(
            "SELECT * FROM (
                 (SELECT * FROM ({live} AND id > $2) AS new ORDER BY id DESC LIMIT {MAX_JOBS})
                 UNION ALL ({live} AND id <= $2 AND state = 'RUNNING' {latest})
                 UNION ALL ({live} AND id <= $2 AND state = 'SCHEDULED' {latest})
                 UNION ALL ({live} AND id <= $2 AND state = 'BURIED' {latest})
                 UNION ALL ({ended} AND id > $4 ORDER BY id DESC LIMIT {MAX_JOBS})
                 UNION ALL ({ended} AND id <= $4 AND id = ANY($5))
             ) AS job {latest}"
        );
        let queue = queue.map(Queue::as_str);
        let first_recent_id = first_id(since - RECENT);
        let mut rows: Vec<Row> =
            tx.all(&sql, &[&since, &first_id(since), &queue, &first_recent_id, &alive]).await?;
        rows.reverse();
        let jobs = rows.iter().map(|row| Ok((row.try_get("changed_at")?, Self::from_row(row)?)));
        Ok(ChangedJobs { jobs: jobs.collect::<Result<_>>()?, at })
    }
}

/// Returns the smallest id that can be created at this time. A UUIDv7 begins with its timestamp.
fn first_id(at: DateTime<Utc>) -> Uuid {
    let milliseconds = u128::try_from(at.timestamp_millis()).unwrap_or_default();
    Uuid::from_u128(milliseconds << 80)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_at_or_above_the_first_of_their_time() {
        let id = Uuid::now_v7();
        let (seconds, nanoseconds) = id.get_timestamp().unwrap().to_unix();
        let seconds = i64::try_from(seconds).unwrap();
        let at = DateTime::from_timestamp(seconds, nanoseconds).unwrap();
        assert!(first_id(at) <= id);
        assert!(first_id(at + chrono::TimeDelta::milliseconds(1)) > id);
    }
}
