//! Jobs as users see them. The table `job` contains live jobs: waiting, scheduled, running and buried (dead-lettered)
//! ones. The table `job_history` contains ended jobs. [`Job`] is the type for both.
//!
//! | file | contents |
//! |---|---|
//! | `query` | filters of lists of jobs, and the tables that they select |
//! | `action` | actions of users on jobs: retry, discard, cancel |
//! | `ended` | notification that a watched job ended without success |
//! | `changed` | recently changed jobs, for the subscription |
//! | `stats` | statistics of queues |
//!
//! The queue (crate `jobs`) pushes, claims and acknowledges jobs. This module contains the queries of the API and the
//! actions of users. All times of a job are Postgres' own `now()`, so the clocks of workers and servers need not agree.

use async_graphql::SimpleObject;
use chrono::{DateTime, Utc};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    access::{directive::requires, permission::Permission},
    base::{
        actor::Actor,
        db::{FromRow, Tx},
        entity::{self, Entity, JobId, OrganizationId},
        error::{Error, Result},
        event::Event,
        page::{Page, PageRequest, Position},
        text::text_enum,
    },
};

mod action;
mod changed;
mod ended;
mod query;
mod stats;

pub use action::RETRY_ALL_MAX;
pub use changed::{ChangedJobs, MAX_JOBS};
pub use ended::{ENDED_INSERT, NEW_ID};
use query::FilterValues;
pub use query::JobFilter;
pub use stats::QueueStats;

text_enum! {
    /// A queue: a class of jobs that workers claim separately.
    Queue in "job"."queue" {
        /// Compliance runs and re-evaluation of assets.
        Scan = "SCAN",
        /// Runs of the health checks of services.
        Probe = "PROBE",
        /// Triage runs, which explain incidents.
        Triage = "TRIAGE",
        /// Imports of files that were uploaded.
        Import = "IMPORT",
        /// Notifications to people and systems.
        Notify = "NOTIFY",
        /// Maintenance of the SentryOps installation itself.
        Upkeep = "UPKEEP",
    }
}

text_enum! {
    /// The state of a job.
    JobState in "job"."state" {
        /// Ready for the next free worker of the queue.
        Waiting = "WAITING",
        /// Not ready before the time in `runAt`, as requested or after a failure.
        Scheduled = "SCHEDULED",
        /// Claimed by a worker, which is running the job or starts it next.
        Running = "RUNNING",
        /// The job completed without error.
        Succeeded = "SUCCEEDED",
        /// Buried (dead-lettered): failed permanently, until a user retries or discards the job.
        Buried = "BURIED",
        /// Cancelled by a user, because the job's actor had lost the permission, or in favour of a newer job with the
        /// same key.
        Cancelled = "CANCELLED",
        /// Buried, then discarded by a user.
        Discarded = "DISCARDED",
    }
}

/// A job: one unit of work for a worker.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
#[graphql(name = "JobRow", directive = requires::apply(Permission::JobRead))]
pub struct Job {
    /// The job's id, beginning `job_`.
    pub id: JobId,
    /// The queue of the job.
    pub queue: Queue,
    /// Kind of work, e.g. `scan.shard`: the evaluation of one shard, i.e. one part, of a compliance run.
    pub kind: String,
    /// The state of the job.
    pub state: JobState,
    /// Number of attempts started so far. An attempt does not count if it ended because the job cannot run now and is
    /// postponed (snoozed), or because its worker gave the job back (released), e.g. at shutdown.
    pub attempt: i16,
    /// Maximum number of attempts; if the last one fails, the job is buried (dead-lettered).
    pub max_attempts: i16,
    /// Priority; jobs with a higher number run first.
    pub priority: i32,
    /// Time before which the job does not run.
    pub run_at: DateTime<Utc>,
    /// Time at which the job was enqueued.
    pub queued_at: DateTime<Utc>,
    /// Time at which the latest attempt started; null before the first attempt.
    pub started_at: Option<DateTime<Utc>>,
    /// Time at which the job succeeded, was cancelled or was discarded by a user; null before, also while it is buried.
    pub finished_at: Option<DateTime<Utc>>,
    /// Reason of the latest failure, snooze or cancellation; null if there was none, and after success.
    pub error: Option<String>,
    /// Id of the worker that runs the job or ran it last; `None` before the first attempt.
    #[graphql(skip)]
    pub worker: Option<Uuid>,
    /// The actor on whose behalf the job runs.
    #[graphql(skip)]
    pub actor: Actor,
    /// Id of the object that the job is about; null for jobs about no single object.
    pub subject: Option<String>,
    /// True if cancellation of a running job was requested and its worker has not stopped it yet.
    pub is_cancelling: bool,
}

impl FromRow for Job {
    fn from_row(row: &Row) -> Result<Self> {
        let actor_id: Option<Uuid> = row.try_get("actor_id")?;
        Ok(Self {
            id: row.try_get("id")?,
            queue: Queue::from_column(row.try_get("queue")?)?,
            kind: row.try_get("kind")?,
            state: JobState::from_column(row.try_get("state")?)?,
            attempt: row.try_get("attempt")?,
            max_attempts: row.try_get("max_attempts")?,
            priority: row.try_get("priority")?,
            run_at: row.try_get("run_at")?,
            queued_at: row.try_get("queued_at")?,
            started_at: row.try_get("started_at")?,
            finished_at: row.try_get("finished_at")?,
            error: row.try_get("error")?,
            worker: row.try_get("worker")?,
            actor: Actor::from_columns(row.try_get("actor_kind")?, actor_id)
                .ok_or(Error::Corrupt { table: "job", column: "actor_kind" })?,
            subject: row.try_get("subject")?,
            is_cancelling: row.try_get("is_cancelling")?,
        })
    }
}

/// SELECT list for a job in the table `job`.
const LIVE_COLUMNS: &str =
    "id, queue, kind, state, attempt, max_attempts, priority, run_at, queued_at, started_at,
    NULL::timestamptz AS finished_at, error, worker, actor_kind, actor_id, subject, is_cancelling";
/// SELECT list for a job in the table `job_history`, with the same columns.
const ENDED_COLUMNS: &str =
    "id, queue, kind, outcome AS state, attempt, max_attempts, priority, run_at, queued_at, started_at,
    finished_at, error, worker, actor_kind, actor_id, subject, false AS is_cancelling";

impl Job {
    /// Returns the job, live or ended; `None` if there is no such job, or if its history has been deleted.
    pub async fn find(tx: &Tx, id: JobId) -> Result<Option<Self>> {
        let sql = format!(
            "SELECT {LIVE_COLUMNS} FROM job WHERE id = $1 UNION ALL SELECT {ENDED_COLUMNS} FROM job_history WHERE id = $1"
        );
        tx.opt(&sql, &[&id]).await
    }

    /// Returns the job, live or ended.
    ///
    /// # Errors
    /// `NotFound` if there is no such job, or if its history has been deleted.
    pub async fn get(tx: &Tx, id: JobId) -> Result<Self> {
        Self::find(tx, id).await?.ok_or_else(|| Error::not_found("job", id))
    }

    /// Returns a page of the jobs that match the filter, newest first.
    pub async fn list(tx: &Tx, filter: &JobFilter, page: &PageRequest) -> Result<Page<Self>> {
        let values = FilterValues::of(filter);
        values.common_conditions().page_of_tables(tx, values.tables(), query::ORDER, page).await
    }

    /// Returns the number of jobs that match the filter.
    pub async fn count(tx: &Tx, filter: &JobFilter) -> Result<i64> {
        let values = FilterValues::of(filter);
        values.common_conditions().count_tables(tx, values.tables()).await
    }

    /// Returns the job's position in the list.
    pub fn position(&self) -> Position {
        Position { value: String::new(), id: self.id.uuid() }
    }
}

/// Events about jobs. There are thousands of jobs, so an event names the queue or the organization, not a row.
impl Event {
    /// Returns the event that jobs became ready in a queue. On this event, workers claim from the queue without waiting
    /// for their next poll.
    pub fn jobs_ready(org: OrganizationId, queue: Queue) -> Self {
        Self { org: org.uuid(), kind: Self::jobs_ready_kind(queue), id: Uuid::nil() }
    }

    /// Returns the kind of the events of [`Event::jobs_ready`] for the queue.
    pub fn jobs_ready_kind(queue: Queue) -> String {
        format!("queue.{}", queue.as_str().to_lowercase())
    }

    /// Returns the event that jobs of an organization changed.
    pub fn jobs_changed(org: OrganizationId) -> Self {
        Self { org: org.uuid(), kind: entity::Job::PREFIX.to_owned(), id: Uuid::nil() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_about_jobs_name_no_row() {
        let org = OrganizationId::new();
        let kinds = [Event::jobs_ready(org, Queue::Scan), Event::jobs_changed(org)].map(|event| {
            assert_eq!((event.org, event.id), (org.uuid(), Uuid::nil()));
            event.kind
        });
        assert_eq!(kinds, ["queue.scan", "job"]);
    }
}
