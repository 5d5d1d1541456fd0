//! Actions of users on jobs: retry, discard, cancel. The actions of workers are in the queue (crate `jobs`).
//!
//! The row of the job is locked before its state is checked, so that a worker and a user cannot change the job at the
//! same time: workers skip locked rows when they claim jobs.

use serde_json::{Value, json};
use tokio_postgres::Row;

use super::{
    ENDED_COLUMNS, ENDED_INSERT, Job, JobFilter, JobState, LIVE_COLUMNS, Queue, query::FilterValues,
};
use crate::{
    access::audit::Entry,
    base::{
        db::Tx,
        entity::JobId,
        error::{Error, Result},
        event::Event,
    },
};

/// Maximum number of jobs that one call of [`Job::retry_all`] retries.
pub const RETRY_ALL_MAX: i64 = 10_000;

impl Job {
    /// Makes a buried (dead-lettered) job ready for a worker again, with all of its attempts. Its error stays visible
    /// until the next failure.
    ///
    /// # Errors
    /// `Conflict` if the job is not buried, or if another job with the same deduplication key is waiting or scheduled.
    pub async fn retry(tx: &Tx, id: JobId) -> Result<Self> {
        let before = Self::lock(tx, id).await?;
        before.require_state(&[JobState::Buried], "only BURIED jobs can be retried")?;
        let sql = format!(
            "UPDATE job SET state = 'WAITING', attempt = 0, is_suspect = false, is_cancelling = false, run_at = now(),
                            changed_at = now()
             WHERE id = $1 RETURNING {LIVE_COLUMNS}"
        );
        let after: Self = tx.one(&sql, &[&id]).await?;
        after.record(tx, "job.retried", &before).await?;
        tx.emit(Event::jobs_ready(tx.org(), after.queue));
        tx.emit(Event::jobs_changed(tx.org()));
        Ok(after)
    }

    /// Retries the buried jobs that match the filter, oldest first, and returns their number. One call retries at most
    /// [`RETRY_ALL_MAX`] jobs, so repeat the call while it returns that many. Of several jobs with the same
    /// deduplication key, one is retried; none is if a job with the key is waiting or scheduled. Writes one audit
    /// entry, with the filter and the number.
    ///
    /// # Errors
    /// `Invalid` if the filter names states other than `BURIED`.
    pub async fn retry_all(tx: &Tx, filter: &JobFilter) -> Result<i64> {
        if filter
            .state
            .as_ref()
            .is_some_and(|states| states.iter().any(|state| *state != JobState::Buried))
        {
            return Err(Error::invalid(
                "filter.state",
                "only BURIED jobs can be retried: omit the state, or give BURIED alone",
            ));
        }
        if filter.state.as_ref().is_some_and(Vec::is_empty) {
            return Ok(0);
        }
        let values = FilterValues::of(filter);
        let (filtered, params) = values.common_conditions().into_sql();
        let sql = format!(
            "WITH buried AS (
                 SELECT id, kind, unique_key FROM job WHERE state = 'BURIED' AND {filtered}
                   AND NOT EXISTS (SELECT FROM job AS twin WHERE twin.org_id = job.org_id AND twin.kind = job.kind
                                     AND twin.unique_key = job.unique_key AND twin.state IN ('WAITING', 'SCHEDULED'))
                 ORDER BY id LIMIT {RETRY_ALL_MAX} FOR UPDATE),
             chosen AS (SELECT DISTINCT ON (kind, coalesce(unique_key, id::text)) id FROM buried
                        ORDER BY kind, coalesce(unique_key, id::text), id),
             retried AS (
                 UPDATE job SET state = 'WAITING', attempt = 0, is_suspect = false, is_cancelling = false, run_at = now(),
                                changed_at = now()
                 FROM chosen WHERE job.id = chosen.id RETURNING job.queue)
             SELECT queue, count(*) AS jobs FROM retried GROUP BY queue"
        );
        let mut retried = 0;
        for row in tx.all::<Row>(&sql, &params).await? {
            retried += row.try_get::<_, i64>("jobs")?;
            tx.emit(Event::jobs_ready(tx.org(), Queue::from_column(row.try_get("queue")?)?));
        }
        if retried > 0 {
            let audit_details = json!({ "filter": filter, "retried": retried });
            Entry::created("job.all_retried", tx.org(), &audit_details).record(tx).await?;
            tx.emit(Event::jobs_changed(tx.org()));
        }
        Ok(retried)
    }

    /// Discards a buried job.
    ///
    /// # Errors
    /// `Conflict` if the job is not buried.
    pub async fn discard(tx: &Tx, id: JobId) -> Result<Self> {
        let before = Self::lock(tx, id).await?;
        before.require_state(&[JobState::Buried], "only BURIED jobs can be discarded")?;
        before.move_to_history(tx, JobState::Discarded, "job.discarded").await
    }

    /// Cancels a job. A job that waits ends immediately. A running job is marked, and its worker stops it at the next
    /// renewal of its lease.
    ///
    /// # Errors
    /// `Conflict` if the job has ended or is buried.
    pub async fn cancel(tx: &Tx, id: JobId) -> Result<Self> {
        let before = Self::lock(tx, id).await?;
        let allowed = [JobState::Waiting, JobState::Scheduled, JobState::Running];
        before.require_state(&allowed, "retry or discard it instead")?;
        if before.state != JobState::Running {
            return before.move_to_history(tx, JobState::Cancelled, "job.cancelled").await;
        }
        if before.is_cancelling {
            return Ok(before);
        }
        tx.exec("UPDATE job SET is_cancelling = true, changed_at = now() WHERE id = $1", &[&id])
            .await?;
        let after = Self { is_cancelling: true, ..before.clone() };
        after.record(tx, "job.cancelled", &before).await?;
        tx.emit(Event::jobs_changed(tx.org()));
        Ok(after)
    }

    async fn lock(tx: &Tx, id: JobId) -> Result<Self> {
        match tx
            .opt(&format!("SELECT {LIVE_COLUMNS} FROM job WHERE id = $1 FOR UPDATE"), &[&id])
            .await?
        {
            Some(job) => Ok(job),
            None => Self::get(tx, id).await,
        }
    }

    fn require_state(&self, allowed: &[JobState], advice: &str) -> Result<()> {
        if allowed.contains(&self.state) {
            return Ok(());
        }
        let state = self.state.as_str();
        Err(Error::Conflict(if self.state.has_ended() {
            format!("this job has ended: {state}")
        } else {
            format!("this job is {state}: {advice}")
        }))
    }

    /// Moves a live job to the history. Pushes a notification job if the job was watched.
    async fn move_to_history(
        &self,
        tx: &Tx,
        outcome: JobState,
        action: &'static str,
    ) -> Result<Self> {
        let sql = format!(
            "WITH ended AS (
                 DELETE FROM job WHERE id = $1
                 RETURNING id, org_id, queue, kind, version, payload, subject, priority, attempt, max_attempts, worker, watched,
                           actor_kind, actor_id, error, run_at, queued_at, started_at,
                           $2::text AS outcome, now() AS finished_at),
             kept AS (
                 INSERT INTO job_history (id, org_id, queue, kind, subject, outcome, priority, attempt, max_attempts, worker,
                                          actor_kind, actor_id, error, run_at, queued_at, started_at, finished_at)
                 SELECT id, org_id, queue, kind, subject, outcome, priority, attempt, max_attempts, worker,
                        actor_kind, actor_id, error, run_at, queued_at, started_at, finished_at FROM ended),
             notified AS ({ENDED_INSERT})
             SELECT {ENDED_COLUMNS} FROM ended"
        );
        let after: Self = tx.one(&sql, &[&self.id, &outcome.as_str()]).await?;
        after.record(tx, action, self).await?;
        tx.emit(Event::jobs_changed(tx.org()));
        // Only a watched job has a notification. For other jobs, the event costs workers one needless poll.
        tx.emit(Event::jobs_ready(tx.org(), after.queue));
        Ok(after)
    }

    async fn record(&self, tx: &Tx, action: &'static str, before: &Self) -> Result<()> {
        Entry::changed(action, self.id, before.snapshot(), self.snapshot()).record(tx).await
    }

    fn snapshot(&self) -> Value {
        json!({
            "queue": self.queue,
            "kind": self.kind,
            "subject": self.subject,
            "state": self.state,
            "attempt": self.attempt,
            "isCancelling": self.is_cancelling,
        })
    }
}
