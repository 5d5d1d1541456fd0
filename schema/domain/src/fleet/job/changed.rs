//! Which jobs of an organization changed lately: what a subscription sends.
//!
//! Neither queue nor history has an index on the time of change that could be asked for one organization: keeping one
//! would cost every lease and every ack. Chosen instead: what an index leads to anyway (new ids, running, scheduled and
//! buried ones), and in the history the jobs that were pushed lately or that the caller saw alive; the latest of each.
//! Given up: jobs that go back to wait, which are seen when they run; one that waited for long and ran between two
//! looks; and all but the latest of very many.

use chrono::{DateTime, TimeDelta, Utc};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Job, Queue};
use crate::base::{
    db::{FromRow, Tx},
    error::Result,
};

/// The most jobs that are told of at once.
pub const MOST: i64 = 100;

/// How long ago a job was pushed at most that may end unseen.
const LATELY: TimeDelta = TimeDelta::minutes(1);

/// Jobs that changed, the latest last, and when that was looked at.
#[derive(Debug)]
pub struct Changed {
    /// Each with the time of its change.
    pub jobs: Vec<(DateTime<Utc>, Job)>,
    /// Postgres' time at the look.
    pub at: DateTime<Utc>,
}

const COLUMNS: &str = "id, queue, kind, priority, attempt, max_attempts, run_at, queued_at, started_at, error, worker, actor_kind, actor_id, subject";

impl Job {
    /// The jobs that changed after `since`, at most [`MOST`]; none yet, where nothing was looked at before. `alive` are
    /// those whose end is waited for.
    pub async fn changed(
        tx: &Tx,
        queue: Option<Queue>,
        since: Option<DateTime<Utc>>,
        alive: &[Uuid],
    ) -> Result<Changed> {
        let at = tx.one::<Row>("SELECT now() AS at", &[]).await?.try_get("at")?;
        let Some(since) = since else { return Ok(Changed { jobs: Vec::new(), at }) };
        let live = format!(
            "SELECT {COLUMNS}, is_cancelling, state, NULL::timestamptz AS finished_at, changed_at FROM job
             WHERE changed_at > $1 AND ($3::text IS NULL OR queue = $3)"
        );
        let ended = format!(
            "SELECT {COLUMNS}, false AS is_cancelling, outcome AS state, finished_at, finished_at AS changed_at FROM job_history
             WHERE finished_at > $1 AND ($3::text IS NULL OR queue = $3)"
        );
        let latest = format!("ORDER BY changed_at DESC, id LIMIT {MOST}");
        let sql = format!(
            "SELECT * FROM (
                 (SELECT * FROM ({live} AND id > $2) AS new ORDER BY id DESC LIMIT {MOST})
                 UNION ALL ({live} AND id <= $2 AND state = 'RUNNING' {latest})
                 UNION ALL ({live} AND id <= $2 AND state = 'SCHEDULED' {latest})
                 UNION ALL ({live} AND id <= $2 AND state = 'BURIED' {latest})
                 UNION ALL ({ended} AND id > $4 ORDER BY id DESC LIMIT {MOST})
                 UNION ALL ({ended} AND id <= $4 AND id = ANY($5))
             ) AS job {latest}"
        );
        let queue = queue.map(Queue::as_str);
        let lately = first_id(since - LATELY);
        let mut rows: Vec<Row> =
            tx.all(&sql, &[&since, &first_id(since), &queue, &lately, &alive]).await?;
        rows.reverse();
        let jobs = rows.iter().map(|row| Ok((row.try_get("changed_at")?, Self::from_row(row)?)));
        Ok(Changed { jobs: jobs.collect::<Result<_>>()?, at })
    }
}

/// The least id of that time: ids begin with theirs.
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
