//! What people may do to a job. What a worker does to it is the queue's business.
//!
//! The job is locked before it is decided what can be done, so that a worker and a person do not both have their way:
//! whoever takes jobs leaves out the locked ones.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio_postgres::Row;

use super::{ENDED, ENDED_INSERT, Job, JobFilter, JobState, LIVE, Queue, query::FilterValues};
use crate::{
    access::audit::Entry,
    base::{
        db::Tx,
        entity::JobId,
        error::{Error, Result},
        event::Event,
    },
};

/// Jobs that one call of [`Job::retry_all`] retries at most.
pub const RETRY_ALL_MAX: i64 = 10_000;

impl Job {
    /// Lets a buried one wait again, with all its attempts; why it failed stays to be read until it fails again.
    ///
    /// # Errors
    /// `Conflict` where it is not buried, or another of its key waits already.
    pub async fn retry(tx: &Tx, id: JobId, now: DateTime<Utc>) -> Result<Self> {
        let before = Self::lock(tx, id).await?;
        before.refuse_unless(&[JobState::Buried], "only what is BURIED is retried")?;
        let sql = format!(
            "UPDATE job SET state = 'WAITING', attempt = 0, is_suspect = false, is_cancelling = false, run_at = now(),
                            changed_at = now()
             WHERE id = $1 RETURNING {LIVE}"
        );
        let after: Self = tx.one(&sql, &[&id]).await?;
        after.record(tx, "job.retried", &before, now).await?;
        tx.emit(Event::ready(tx.org(), after.queue));
        tx.emit(Event::jobs(tx.org()));
        Ok(after)
    }

    /// Retries the buried ones that the filter lets through, those pushed first first, and returns how many: at most
    /// [`RETRY_ALL_MAX`], so call it again while it returns that many. One of several with the same key is retried, none
    /// where another of the key waits already. The audit trail gets one entry, with the filter and the number.
    ///
    /// # Errors
    /// `Invalid` for a filter on other states.
    pub async fn retry_all(tx: &Tx, filter: &JobFilter, now: DateTime<Utc>) -> Result<i64> {
        if filter
            .state
            .as_ref()
            .is_some_and(|states| states.iter().any(|one| *one != JobState::Buried))
        {
            return Err(Error::invalid(
                "filter.state",
                "only what is BURIED is retried: leave it out, or give BURIED alone",
            ));
        }
        if filter.state.as_ref().is_some_and(Vec::is_empty) {
            return Ok(0);
        }
        let values = FilterValues::of(filter);
        let (filtered, params) = values.listing().into_sql();
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
            tx.emit(Event::ready(tx.org(), Queue::from_column(row.try_get("queue")?)?));
        }
        if retried > 0 {
            let what = json!({ "filter": filter, "retried": retried });
            Entry::created("job.all_retried", tx.org(), &what).record(tx, now).await?;
            tx.emit(Event::jobs(tx.org()));
        }
        Ok(retried)
    }

    /// Gives a buried one up.
    ///
    /// # Errors
    /// `Conflict` where it is not buried.
    pub async fn discard(tx: &Tx, id: JobId, now: DateTime<Utc>) -> Result<Self> {
        let before = Self::lock(tx, id).await?;
        before.refuse_unless(&[JobState::Buried], "only what is BURIED is discarded")?;
        before.end(tx, JobState::Discarded, "job.discarded", now).await
    }

    /// Ends one that waits; tells the worker of one that runs to end it, which takes until the worker renews its lease.
    ///
    /// # Errors
    /// `Conflict` where it has ended, or is buried.
    pub async fn cancel(tx: &Tx, id: JobId, now: DateTime<Utc>) -> Result<Self> {
        let before = Self::lock(tx, id).await?;
        let legal = [JobState::Waiting, JobState::Scheduled, JobState::Running];
        before.refuse_unless(&legal, "retry or discard it instead")?;
        if before.state != JobState::Running {
            return before.end(tx, JobState::Cancelled, "job.cancelled", now).await;
        }
        if before.is_cancelling {
            return Ok(before);
        }
        tx.exec("UPDATE job SET is_cancelling = true, changed_at = now() WHERE id = $1", &[&id])
            .await?;
        let after = Self { is_cancelling: true, ..before.clone() };
        after.record(tx, "job.cancelled", &before, now).await?;
        tx.emit(Event::jobs(tx.org()));
        Ok(after)
    }

    async fn lock(tx: &Tx, id: JobId) -> Result<Self> {
        match tx.opt(&format!("SELECT {LIVE} FROM job WHERE id = $1 FOR UPDATE"), &[&id]).await? {
            Some(job) => Ok(job),
            None => Self::get(tx, id).await,
        }
    }

    fn refuse_unless(&self, legal: &[JobState], advice: &str) -> Result<()> {
        if legal.contains(&self.state) {
            return Ok(());
        }
        let state = self.state.as_str();
        Err(Error::Conflict(if self.state.has_ended() {
            format!("this job has ended: {state}")
        } else {
            format!("this job is {state}: {advice}")
        }))
    }

    /// Moves a live one to the history, and tells who watched it.
    async fn end(
        &self,
        tx: &Tx,
        outcome: JobState,
        action: &'static str,
        now: DateTime<Utc>,
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
             told AS ({ENDED_INSERT})
             SELECT {ENDED} FROM ended"
        );
        let after: Self = tx.one(&sql, &[&self.id, &outcome.as_str()]).await?;
        after.record(tx, action, self, now).await?;
        tx.emit(Event::jobs(tx.org()));
        // Only a watched one told; a hint too many costs a worker one look.
        tx.emit(Event::ready(tx.org(), after.queue));
        Ok(after)
    }

    async fn record(
        &self,
        tx: &Tx,
        action: &'static str,
        before: &Self,
        now: DateTime<Utc>,
    ) -> Result<()> {
        Entry::changed(action, self.id, before.snapshot(), self.snapshot()).record(tx, now).await
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
