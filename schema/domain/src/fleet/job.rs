//! A job as people see it: waiting, running or buried in `job`, or ended in `job_history`; one shape for both. (`job/query`:
//! which are asked for; `job/verb`: what people may do to one; `job/ended`: how a watched one tells that it ended;
//! `job/changed`: which changed lately; `job/stats`: a queue in numbers.)
//!
//! How jobs are pushed, leased and finished is the queue's business (crate `jobs`); here is what the API shows, and what
//! people may do to a job: retry a buried one, discard it, cancel what has not ended. All times of a job are Postgres'
//! own `now()`: the clocks of workers and servers need not agree.

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

mod changed;
mod ended;
mod query;
mod stats;
mod verb;

pub use changed::{Changed, MOST};
pub use ended::{ENDED_INSERT, NEW_ID};
use query::FilterValues;
pub use query::JobFilter;
pub use stats::QueueStats;
pub use verb::RETRY_ALL_MAX;

text_enum! {
    /// A class of jobs, with workers of its own.
    Queue in "job"."queue" {
        /// Shards of compliance runs.
        Scan = "SCAN",
        /// Checks of services.
        Probe = "PROBE",
        /// Explanations of incidents.
        Triage = "TRIAGE",
        /// Files that come in.
        Import = "IMPORT",
        /// Messages to people and systems.
        Notify = "NOTIFY",
        /// Housekeeping.
        Upkeep = "UPKEEP",
    }
}

text_enum! {
    /// Where a job is in its life.
    JobState in "job"."state" {
        /// Ready for the next free worker.
        Waiting = "WAITING",
        /// To be run later: asked for so, or after a failure.
        Scheduled = "SCHEDULED",
        /// A worker has it.
        Running = "RUNNING",
        /// Done.
        Succeeded = "SUCCEEDED",
        /// Failed for good: to be retried or discarded by somebody.
        Buried = "BURIED",
        /// Ended by somebody before it was done, or by a right that its actor had lost.
        Cancelled = "CANCELLED",
        /// Buried, and given up by somebody.
        Discarded = "DISCARDED",
    }
}

/// An order to a worker.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
#[graphql(name = "JobRow", directive = requires::apply(Permission::JobRead))]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// Its queue.
    pub queue: Queue,
    /// What is to be done, e.g. `scan.shard`.
    pub kind: String,
    /// Where it is in its life.
    pub state: JobState,
    /// Starts so far.
    pub attempt: i16,
    /// Starts after which it is buried.
    pub max_attempts: i16,
    /// Higher ones go first.
    pub priority: i32,
    /// Not before this time.
    pub run_at: DateTime<Utc>,
    /// When it was pushed.
    pub queued_at: DateTime<Utc>,
    /// When it was last started.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// Why it failed last.
    pub error: Option<String>,
    /// The worker that has it, or had it last.
    #[graphql(skip)]
    pub worker: Option<Uuid>,
    /// On whose behalf it runs.
    #[graphql(skip)]
    pub actor: Actor,
    /// What it is about, as an id.
    pub subject: Option<String>,
    /// Whether it was told to end while it runs, and its worker has yet to notice.
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

/// The columns of a job that has not ended.
const LIVE: &str =
    "id, queue, kind, state, attempt, max_attempts, priority, run_at, queued_at, started_at,
    NULL::timestamptz AS finished_at, error, worker, actor_kind, actor_id, subject, is_cancelling";
/// The same of one that has.
const ENDED: &str =
    "id, queue, kind, outcome AS state, attempt, max_attempts, priority, run_at, queued_at, started_at,
    finished_at, error, worker, actor_kind, actor_id, subject, false AS is_cancelling";

impl Job {
    /// The job, or `None`.
    pub async fn find(tx: &Tx, id: JobId) -> Result<Option<Self>> {
        let sql = format!(
            "SELECT {LIVE} FROM job WHERE id = $1 UNION ALL SELECT {ENDED} FROM job_history WHERE id = $1"
        );
        tx.opt(&sql, &[&id]).await
    }

    /// The job.
    pub async fn get(tx: &Tx, id: JobId) -> Result<Self> {
        Self::find(tx, id).await?.ok_or_else(|| Error::not_found("job", id))
    }

    /// A page of those that the filter lets through, the last pushed first.
    pub async fn list(tx: &Tx, filter: &JobFilter, page: &PageRequest) -> Result<Page<Self>> {
        let values = FilterValues::of(filter);
        values.listing().page_of(tx, values.sides(), query::ORDER, page).await
    }

    /// How many the filter lets through.
    pub async fn count(tx: &Tx, filter: &JobFilter) -> Result<i64> {
        let values = FilterValues::of(filter);
        values.listing().count_of(tx, values.sides()).await
    }

    /// Its place in the list.
    pub fn position(&self) -> Position {
        Position { value: String::new(), id: self.id.uuid() }
    }
}

/// Jobs come by the thousand, so hints about them name the queue or the organization and no row.
impl Event {
    /// Jobs of this organization are ready in that queue: who takes from it need not wait for the next poll.
    pub fn ready(org: OrganizationId, queue: Queue) -> Self {
        Self { org: org.uuid(), kind: Self::ready_kind(queue), id: Uuid::nil() }
    }

    /// The kind of such hints.
    pub fn ready_kind(queue: Queue) -> String {
        format!("queue.{}", queue.as_str().to_lowercase())
    }

    /// Jobs of this organization changed.
    pub fn jobs(org: OrganizationId) -> Self {
        Self { org: org.uuid(), kind: entity::Job::PREFIX.to_owned(), id: Uuid::nil() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_about_jobs_name_no_row() {
        let org = OrganizationId::new();
        let kinds = [Event::ready(org, Queue::Scan), Event::jobs(org)].map(|event| {
            assert_eq!((event.org, event.id), (org.uuid(), Uuid::nil()));
            event.kind
        });
        assert_eq!(kinds, ["queue.scan", "job"]);
    }
}
