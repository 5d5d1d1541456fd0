//! SQL statements on leases. A lease is the time until which a claim is valid; `claim` acquires it. `renew` extends
//! leases. `finish` acknowledges jobs that succeeded, and `settle` acknowledges all other outcomes. Each of these
//! compares the fencing token, i.e. the number of the claim. `reap` ends claims whose lease has expired.
//!
//! All times are Postgres' own, so the clocks of workers do not matter. `renew`, `finish` and `settle` find rows by
//! their key and `lease_until`, never by their state. After a quiet hour, Postgres' statistics show the partial index
//! on running jobs as empty, so a plan would read that whole index. Only `reap`, which has no keys, uses this index.

use std::time::Duration;

use domain::{
    Result, Tx,
    base::db::{Fleet, FromRow, Kind},
    entity::{JobId, OrganizationId},
    fleet::job::{ENDED_INSERT, Queue},
};

/// Identity of a claim. Every later statement about the claim contains it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// Organization that owns the job.
    pub org: OrganizationId,
    /// Id of the claimed job.
    pub id: JobId,
    /// Fencing token. Every claim of the job increases it by one.
    pub fence: i32,
}

/// Result of renewing one lease.
#[derive(Debug)]
pub struct RenewalResult {
    /// Id of the claimed job.
    pub id: JobId,
    /// True if the claim is still valid.
    pub is_held: bool,
    /// True if cancellation of the job was requested.
    pub is_cancelling: bool,
}

impl FromRow for RenewalResult {
    fn from_row(row: &tokio_postgres::Row) -> Result<Self> {
        Ok(Self {
            id: row.try_get("id")?,
            is_held: row.try_get("is_held")?,
            is_cancelling: row.try_get("is_cancelling")?,
        })
    }
}

/// Extends leases by `lease` from now, and returns one result per lease. If a row is locked, another transaction is
/// ending or cancelling the job: the row is only read, without waiting for the lock.
pub async fn renew(
    tx: &Tx<Fleet>,
    leases: &[Lease],
    lease: Duration,
) -> Result<Vec<RenewalResult>> {
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

const INSERT_HISTORY: &str = "INSERT INTO job_history (id, org_id, queue, kind, subject, outcome, priority, attempt, max_attempts, worker,
            actor_kind, actor_id, error, run_at, queued_at, started_at, finished_at)";

/// Acknowledges jobs that succeeded, and moves them to the history. Returns the number of claims that were still valid.
pub async fn finish<K: Kind>(tx: &Tx<K>, leases: &[Lease]) -> Result<u64> {
    let Columns { orgs, ids, fences } = Columns::of(leases);
    let sql = format!(
        "WITH held AS (SELECT org_id, id, fence FROM unnest($1::uuid[], $2::uuid[], $3::int[]) AS held (org_id, id, fence)),
              gone AS (DELETE FROM job USING held
                       WHERE job.org_id = held.org_id AND job.id = held.id AND job.fence = held.fence AND job.lease_until IS NOT NULL
                       RETURNING {CLAIM_COLUMNS})
         {INSERT_HISTORY}
         SELECT id, org_id, queue, kind, subject, 'SUCCEEDED', priority, attempt, max_attempts, worker,
                actor_kind, actor_id, NULL, run_at, queued_at, started_at, now() FROM gone"
    );
    tx.exec(&sql, &[&orgs, &ids, &fences]).await
}

/// Next state of a claimed job that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    /// The job is retried after a wait.
    Retry {
        /// Reason of the failure, shown to users.
        reason: String,
        /// Time until the next attempt.
        after: Duration,
    },
    /// The job is retried after a wait, without using up an attempt.
    Snooze {
        /// Reason of the wait, shown to users.
        reason: String,
        /// Time until the next attempt.
        after: Duration,
    },
    /// The job waits again, as if it had not been started. It uses up no attempt.
    Release,
    /// The job is buried (dead-lettered): it stays in the queue until a user retries or discards it.
    Bury {
        /// Reason of the last failure, shown to users.
        reason: String,
    },
    /// The job is cancelled, on request or because its actor no longer has the permission.
    Cancel {
        /// Reason of the cancellation, shown to users.
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

/// Acknowledges jobs that did not succeed, and moves each to its next state. Returns the number of claims that were
/// still valid.
///
/// A job whose cancellation was requested is cancelled instead of retried. A job whose deduplication key was pushed
/// again meanwhile is cancelled in favour of the newer job.
///
/// # Errors
/// Also fails if a job with the same key is being pushed at the same time. When the call is repeated, it finds that job
/// and succeeds.
pub async fn settle(tx: &Tx<Fleet>, settled: &[(Lease, Disposition)]) -> Result<u64> {
    let leases: Vec<Lease> = settled.iter().map(|(lease, _)| *lease).collect();
    let Columns { orgs, ids, fences } = Columns::of(&leases);
    let mut dispositions = Vec::with_capacity(settled.len());
    let mut reasons = Vec::with_capacity(settled.len());
    let mut waits = Vec::with_capacity(settled.len());
    for (_, disposition) in settled {
        let (disposition, reason, wait) = disposition.columns();
        dispositions.push(disposition);
        // Postgres cannot store a NUL character.
        reasons.push(reason.map(|reason| reason.replace('\0', "\u{fffd}")));
        waits.push(wait);
    }
    let end_clauses = end_clauses();
    let sql = format!(
        "WITH held AS (
             SELECT {CLAIM_COLUMNS}, given.reason, given.wait_ms,
                    CASE WHEN given.disposition = 'BURY' THEN 'BURY'
                         WHEN given.disposition = 'CANCEL' OR job.is_cancelling THEN 'CANCEL'
                         WHEN {HAS_NEWER_JOB} THEN 'MERGE'
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
         {end_clauses}
         SELECT count(*) AS settled FROM held"
    );
    let row: tokio_postgres::Row =
        tx.one(&sql, &[&orgs, &ids, &fences, &dispositions, &reasons, &waits]).await?;
    Ok(row.try_get::<_, i64>("settled")?.unsigned_abs())
}

/// Ends claims whose leases have expired, at most 500 per call: the worker has died, or cannot reach the database. A
/// job with attempts left waits again; if only few are left, it becomes a suspect. A job without attempts left is
/// buried.
pub async fn reap(tx: &Tx<Fleet>) -> Result<Vec<ReapedJob>> {
    let end_clauses = end_clauses();
    let sql = format!(
        "WITH held AS (
             SELECT {CLAIM_COLUMNS}, $1::text AS reason,
                    CASE WHEN job.is_cancelling THEN 'CANCEL'
                         WHEN job.attempt >= job.max_attempts THEN 'BURY'
                         WHEN {HAS_NEWER_JOB} THEN 'MERGE'
                         ELSE 'RELEASE' END AS disposition
             FROM job WHERE state = 'RUNNING' AND lease_until < now()
               -- Only one job per key at a time: the next call sees that the other one waits.
               AND NOT EXISTS (SELECT FROM job AS elder
                               WHERE elder.org_id = job.org_id AND elder.kind = job.kind AND elder.unique_key = job.unique_key
                                 AND elder.state = 'RUNNING' AND elder.lease_until < now() AND elder.id < job.id)
             ORDER BY lease_until LIMIT 500 FOR UPDATE SKIP LOCKED),
         kept AS (
             UPDATE job SET state = CASE WHEN disposition = 'BURY' THEN 'BURIED' ELSE 'WAITING' END,
                            is_suspect = job.attempt + {SUSPECT_ATTEMPTS_LEFT} >= job.max_attempts, error = reason, lease_until = NULL, changed_at = now()
             FROM held
             WHERE job.org_id = held.org_id AND job.id = held.id AND disposition NOT IN ('CANCEL', 'MERGE')),
         {end_clauses}
         SELECT org_id, queue, kind, id, disposition = 'BURY' AS is_buried FROM held"
    );
    tx.all(&sql, &[&"the job's worker stopped or lost its lease"]).await
}

/// A job whose claim was ended because its lease had expired.
#[derive(Debug)]
pub struct ReapedJob {
    /// Organization that owns the job.
    pub org: OrganizationId,
    /// Queue that the job belongs to.
    pub queue: Queue,
    /// Kind of the reaped job, e.g. `scan.shard`.
    pub kind: String,
    /// Id of the reaped job.
    pub id: JobId,
    /// True if the job was buried, because no attempt was left.
    pub is_buried: bool,
}

impl FromRow for ReapedJob {
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

/// Maximum number of attempts left with which a reaped job becomes a suspect. With two attempts left, a job that only
/// ran beside the one that killed the worker can still succeed, because it no longer runs beside other suspects.
const SUSPECT_ATTEMPTS_LEFT: i16 = 2;

/// Columns of a job that are needed when its claim ends. The payload is not needed.
const CLAIM_COLUMNS: &str = "job.id, job.org_id, job.queue, job.kind, job.version, job.subject, job.priority, job.attempt, job.max_attempts,
    job.worker, job.watched, job.actor_kind, job.actor_id, job.run_at, job.queued_at, job.started_at";

/// SQL condition: a newer job with the same key is waiting or scheduled.
const HAS_NEWER_JOB: &str = "EXISTS (SELECT FROM job AS twin
    WHERE twin.org_id = job.org_id AND twin.kind = job.kind AND twin.unique_key = job.unique_key
      AND twin.state IN ('WAITING', 'SCHEDULED'))";

/// Returns the common table expressions that `settle` and `reap` share. They move jobs that leave the queue to the
/// history. For each watched job (`Job::WATCHED`) that was buried or cancelled, they push a job of the kind
/// `<kind>.ended`.
fn end_clauses() -> String {
    format!(
        "gone AS (
             DELETE FROM job USING held
             WHERE job.org_id = held.org_id AND job.id = held.id AND disposition IN ('CANCEL', 'MERGE')),
         recorded AS (
             {INSERT_HISTORY}
             SELECT id, org_id, queue, kind, subject, 'CANCELLED', priority, attempt, max_attempts, worker, actor_kind, actor_id,
                    CASE disposition WHEN 'MERGE' THEN 'replaced by a newer job of the same key' ELSE reason END,
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
