//! A lease in SQL: renew, finish, settle, reap. (`claim`: how it is taken.) Every statement of a claimant asks for its
//! fence; `reap` asks that its time is up.
//!
//! Postgres' clock decides throughout. What a claimant holds is found by its key and `lease_until`, never by its state:
//! to statistics of a quiet hour the partial index on running jobs looks empty, and it would be read whole. Only `reap`,
//! which has no key, goes by that index.

use std::time::Duration;

use domain::{
    Result, Tx,
    base::db::{Fleet, FromRow, Kind},
    entity::{JobId, OrganizationId},
    fleet::job::{ENDED_INSERT, Queue},
};

/// A claim's identity: what every later statement about it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// Whose job.
    pub org: OrganizationId,
    /// Which.
    pub id: JobId,
    /// The number of this claim.
    pub fence: i32,
}

/// What a renewal found.
#[derive(Debug)]
pub struct Renewed {
    /// The job.
    pub id: JobId,
    /// Whether the claim still holds.
    pub is_held: bool,
    /// Whether somebody wants it ended.
    pub is_cancelling: bool,
}

impl FromRow for Renewed {
    fn from_row(row: &tokio_postgres::Row) -> Result<Self> {
        Ok(Self {
            id: row.try_get("id")?,
            is_held: row.try_get("is_held")?,
            is_cancelling: row.try_get("is_cancelling")?,
        })
    }
}

/// Prolongs claims. A row that is locked is being ended or cancelled right now: it is not waited for, only read.
pub async fn renew(tx: &Tx<Fleet>, leases: &[Lease], lease: Duration) -> Result<Vec<Renewed>> {
    let Columns { orgs, ids, fences } = Columns::of(leases);
    tx.all(
        "WITH held AS (SELECT org_id, id, fence FROM unnest($1::uuid[], $2::uuid[], $3::int[]) AS held (org_id, id, fence)),
              free AS (SELECT job.org_id, job.id FROM job JOIN held USING (org_id, id, fence)
                       WHERE job.lease_until IS NOT NULL FOR UPDATE OF job SKIP LOCKED),
              renewed AS (UPDATE job SET lease_until = now() + $4::bigint * interval '1 ms' FROM free
                          WHERE job.org_id = free.org_id AND job.id = free.id)
         SELECT held.id, job.id IS NOT NULL AS is_held, coalesce(job.is_cancelling, false) AS is_cancelling
         FROM held LEFT JOIN job ON job.org_id = held.org_id AND job.id = held.id AND job.fence = held.fence
                                AND job.lease_until IS NOT NULL",
        &[&orgs, &ids, &fences, &millis(lease)],
    )
    .await
}

const TO_HISTORY: &str = "INSERT INTO job_history (id, org_id, queue, kind, subject, outcome, priority, attempt, max_attempts, worker,
            actor_kind, actor_id, error, run_at, queued_at, started_at, finished_at)";

/// Ends jobs that were done; returns how many of the claims still held.
pub async fn finish<K: Kind>(tx: &Tx<K>, leases: &[Lease]) -> Result<u64> {
    let Columns { orgs, ids, fences } = Columns::of(leases);
    let sql = format!(
        "WITH held AS (SELECT org_id, id, fence FROM unnest($1::uuid[], $2::uuid[], $3::int[]) AS held (org_id, id, fence)),
              gone AS (DELETE FROM job USING held
                       WHERE job.org_id = held.org_id AND job.id = held.id AND job.fence = held.fence AND job.lease_until IS NOT NULL
                       RETURNING {HELD})
         {TO_HISTORY}
         SELECT id, org_id, queue, kind, subject, 'SUCCEEDED', priority, attempt, max_attempts, worker,
                actor_kind, actor_id, NULL, run_at, queued_at, started_at, now() FROM gone"
    );
    tx.exec(&sql, &[&orgs, &ids, &fences]).await
}

/// What becomes of a job that was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    /// Tried again after a wait.
    Retry {
        /// Why.
        reason: String,
        /// How long to wait.
        after: Duration,
    },
    /// Tried again after a wait, without costing an attempt.
    Snooze {
        /// Why.
        reason: String,
        /// How long to wait.
        after: Duration,
    },
    /// Given back as if it had not been started.
    Release,
    /// Dead until somebody decides.
    Bury {
        /// Why.
        reason: String,
    },
    /// Ended by somebody, or by a right that was lost.
    Cancel {
        /// Why.
        reason: String,
    },
}

impl Disposition {
    fn columns(&self) -> (&'static str, Option<&str>, i64) {
        match self {
            Self::Retry { reason, after } => ("RETRY", Some(reason), millis(*after)),
            Self::Snooze { reason, after } => ("SNOOZE", Some(reason), millis(*after)),
            Self::Release => ("RELEASE", None, 0),
            Self::Bury { reason } => ("BURY", Some(reason), 0),
            Self::Cancel { reason } => ("CANCEL", Some(reason), 0),
        }
    }
}

/// Ends claims otherwise than well; returns how many of them still held.
///
/// A job that somebody wants ended is ended instead of waiting again, and one whose key has been pushed anew meanwhile
/// gives way to the newer.
///
/// # Errors
/// Also where a twin was pushed at this very moment: the same call again sees it.
pub async fn settle(tx: &Tx<Fleet>, settled: &[(Lease, Disposition)]) -> Result<u64> {
    let leases: Vec<Lease> = settled.iter().map(|(lease, _)| *lease).collect();
    let Columns { orgs, ids, fences } = Columns::of(&leases);
    let mut dispositions = Vec::with_capacity(settled.len());
    let mut reasons = Vec::with_capacity(settled.len());
    let mut waits = Vec::with_capacity(settled.len());
    for (_, disposition) in settled {
        let (disposition, reason, wait) = disposition.columns();
        dispositions.push(disposition);
        // Postgres has no such character.
        reasons.push(reason.map(|reason| reason.replace('\0', "\u{fffd}")));
        waits.push(wait);
    }
    let end = end();
    let sql = format!(
        "WITH held AS (
             SELECT {HELD}, given.reason, given.wait_ms,
                    CASE WHEN given.disposition = 'BURY' THEN 'BURY'
                         WHEN given.disposition = 'CANCEL' OR job.is_cancelling THEN 'CANCEL'
                         WHEN {HAS_TWIN} THEN 'MERGE'
                         ELSE given.disposition END AS disposition
             FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::text[], $5::text[], $6::bigint[])
                  AS given (org_id, id, fence, disposition, reason, wait_ms)
             JOIN job USING (org_id, id, fence) WHERE job.lease_until IS NOT NULL FOR UPDATE OF job),
         kept AS (
             UPDATE job SET
                 state = CASE WHEN disposition = 'BURY' THEN 'BURIED'
                              WHEN disposition = 'RELEASE' OR wait_ms = 0 THEN 'WAITING' ELSE 'SCHEDULED' END,
                 attempt = CASE WHEN disposition IN ('SNOOZE', 'RELEASE') THEN greatest(job.attempt - 1, 0) ELSE job.attempt END,
                 run_at = CASE WHEN disposition IN ('RETRY', 'SNOOZE') THEN now() + wait_ms * interval '1 ms' ELSE job.run_at END,
                 error = coalesce(reason, job.error), lease_until = NULL, is_cancelling = false, changed_at = now()
             FROM held
             WHERE job.org_id = held.org_id AND job.id = held.id AND disposition NOT IN ('CANCEL', 'MERGE')),
         {end}
         SELECT count(*) AS settled FROM held"
    );
    let row: tokio_postgres::Row =
        tx.one(&sql, &[&orgs, &ids, &fences, &dispositions, &reasons, &waits]).await?;
    Ok(row.try_get::<_, i64>("settled")?.unsigned_abs())
}

/// Takes back what no worker renewed, at most 500 at a time: its worker is gone, or cut off.
pub async fn reap(tx: &Tx<Fleet>) -> Result<Vec<Reaped>> {
    let end = end();
    let sql = format!(
        "WITH held AS (
             SELECT {HELD}, $1::text AS reason,
                    CASE WHEN job.is_cancelling THEN 'CANCEL'
                         WHEN job.attempt >= job.max_attempts THEN 'BURY'
                         WHEN {HAS_TWIN} THEN 'MERGE'
                         ELSE 'RELEASE' END AS disposition
             FROM job WHERE state = 'RUNNING' AND lease_until < now()
               -- One of a key at a time: the next time it sees that the other waits.
               AND NOT EXISTS (SELECT FROM job AS elder
                               WHERE elder.org_id = job.org_id AND elder.kind = job.kind AND elder.unique_key = job.unique_key
                                 AND elder.state = 'RUNNING' AND elder.lease_until < now() AND elder.id < job.id)
             ORDER BY lease_until LIMIT 500 FOR UPDATE SKIP LOCKED),
         kept AS (
             UPDATE job SET state = CASE WHEN disposition = 'BURY' THEN 'BURIED' ELSE 'WAITING' END,
                            is_suspect = job.attempt + {SUSPECT_LEFT} >= job.max_attempts, error = reason, lease_until = NULL, changed_at = now()
             FROM held
             WHERE job.org_id = held.org_id AND job.id = held.id AND disposition NOT IN ('CANCEL', 'MERGE')),
         {end}
         SELECT org_id, queue, kind, id, disposition = 'BURY' AS is_buried FROM held"
    );
    tx.all(&sql, &[&"its worker ended, or lost its lease, while it ran"]).await
}

/// A job whose worker is gone.
#[derive(Debug)]
pub struct Reaped {
    /// Whose.
    pub org: OrganizationId,
    /// Its queue.
    pub queue: Queue,
    /// What it does.
    pub kind: String,
    /// Which.
    pub id: JobId,
    /// Whether that was its last attempt.
    pub is_buried: bool,
}

impl FromRow for Reaped {
    fn from_row(row: &tokio_postgres::Row) -> Result<Self> {
        Ok(Self {
            org: row.try_get("org_id")?,
            queue: Queue::from_column(row.try_get("queue")?)?,
            kind: row.try_get("kind")?,
            id: row.try_get("id")?,
            is_buried: row.try_get("is_buried")?,
        })
    }
}

/// A job that ended with its worker is a suspect when it has so many attempts left: enough of them for those who only ran
/// beside what killed it, and for it to prove itself alone.
const SUSPECT_LEFT: i16 = 2;

/// What is needed of a job whose claim ends; not its payload.
const HELD: &str = "job.id, job.org_id, job.queue, job.kind, job.version, job.subject, job.priority, job.attempt, job.max_attempts,
    job.worker, job.watched, job.actor_kind, job.actor_id, job.run_at, job.queued_at, job.started_at";

/// Whether a newer job of the same key waits.
const HAS_TWIN: &str = "EXISTS (SELECT FROM job AS twin
    WHERE twin.org_id = job.org_id AND twin.kind = job.kind AND twin.unique_key = job.unique_key
      AND twin.state IN ('WAITING', 'SCHEDULED'))";

/// The rest of `settle` and `reap`: what leaves the queue goes to the history, and the kind of a watched job is notified.
fn end() -> String {
    format!(
        "gone AS (
             DELETE FROM job USING held
             WHERE job.org_id = held.org_id AND job.id = held.id AND disposition IN ('CANCEL', 'MERGE')),
         recorded AS (
             {TO_HISTORY}
             SELECT id, org_id, queue, kind, subject, 'CANCELLED', priority, attempt, max_attempts, worker, actor_kind, actor_id,
                    CASE disposition WHEN 'MERGE' THEN 'a newer job of the same key does it' ELSE reason END,
                    run_at, queued_at, started_at, now()
             FROM held WHERE disposition IN ('CANCEL', 'MERGE')),
         ended AS (
             SELECT org_id, queue, kind, version, subject, priority, watched, reason AS error,
                    CASE disposition WHEN 'BURY' THEN 'BURIED' ELSE 'CANCELLED' END AS outcome
             FROM held WHERE disposition IN ('BURY', 'CANCEL')),
         notified AS ({ENDED_INSERT})"
    )
}

struct Columns {
    orgs: Vec<OrganizationId>,
    ids: Vec<JobId>,
    fences: Vec<i32>,
}

impl Columns {
    fn of(leases: &[Lease]) -> Self {
        Self {
            orgs: leases.iter().map(|lease| lease.org).collect(),
            ids: leases.iter().map(|lease| lease.id).collect(),
            fences: leases.iter().map(|lease| lease.fence).collect(),
        }
    }
}

pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
