//! Pushes jobs in the transaction of the change that needs them: the job exists if and only if the change is committed.
//!
//! A push with a deduplication key is merged with the waiting job of that key (`ON CONFLICT … DO UPDATE`). The row of
//! the waiting job stays locked until this transaction ends, so the job cannot start before the change is visible to
//! it. The jobs of a batch have decreasing priorities, so a small batch that is pushed later overtakes the tail of a
//! large one.
//!
//! After the commit, a hint over Redis wakes the workers: a notification without content that the queue may have ready
//! jobs. It is sent with the other events of the transaction. NOTIFY is not used, because it would serialise commits.

use chrono::{DateTime, Utc};
use domain::{
    Actor, Id, Result, Tx,
    access::permission::Permission,
    base::{db::Kind, event::Event},
    entity::{JobId, OrganizationId},
};
use serde_json::Value;

use crate::job::Job;

/// Number of consecutive jobs of a batch that have the same priority.
const JOBS_PER_PRIORITY: usize = 8;

/// Builder of a job to push.
#[derive(Debug)]
#[must_use = "a push does nothing until it is sent"]
pub struct Push<'a, J> {
    job: &'a J,
    key: Option<&'a str>,
    run_at: Option<DateTime<Utc>>,
}

impl<'a, J: Job> Push<'a, J> {
    /// Prepares a job that runs as soon as a worker is free, for the organization and the actor of the transaction.
    pub const fn new(job: &'a J) -> Self {
        Self { job, key: None, run_at: None }
    }

    /// Sets the deduplication key, which is unique per organization and job kind. If a job with this key is waiting or
    /// scheduled, no second job is inserted. That job then runs at the earlier of the two times, on behalf of the new
    /// actor. If it has failed before, it keeps its time, so that its backoff is not shortened.
    pub const fn key(mut self, key: &'a str) -> Self {
        self.key = Some(key);
        self
    }

    /// Sets the time before which the job does not run.
    pub const fn run_at(mut self, run_at: DateTime<Utc>) -> Self {
        self.run_at = Some(run_at);
        self
    }

    /// Sets the organization and the actor. Required if the transaction has none.
    pub const fn on_behalf(self, org: OrganizationId, actor: Actor) -> OnBehalf<'a, J> {
        OnBehalf { push: self, org, actor }
    }

    /// Inserts the job and returns its id. If the push was merged, the id is that of the waiting job.
    pub async fn send(self, tx: &Tx) -> Result<JobId> {
        self.on_behalf(tx.org(), tx.origin().actor).send(tx).await
    }
}

/// Builder of a job to push, with its organization and actor.
#[derive(Debug)]
#[must_use = "a push does nothing until it is sent"]
pub struct OnBehalf<'a, J> {
    push: Push<'a, J>,
    org: OrganizationId,
    actor: Actor,
}

impl<J: Job> OnBehalf<'_, J> {
    /// Inserts the job and returns its id, as [`Push::send`] does.
    pub async fn send<K: Kind>(self, tx: &Tx<K>) -> Result<JobId> {
        let Self { push, org, actor } = self;
        let (actor_kind, actor_id) = actor.columns();
        let row: PushedRow = tx
            .one(
                "INSERT INTO job (org_id, id, queue, kind, version, payload, subject, state, priority, run_at,
                                  max_attempts, unique_key, watched, actor_kind, actor_id, permission, queued_at, changed_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7,
                         CASE WHEN $8::timestamptz > now() THEN 'SCHEDULED' ELSE 'WAITING' END,
                         0, coalesce($8, now()), $9, $10, $11, $12, $13, $14, now(), now())
                 ON CONFLICT (org_id, kind, unique_key) WHERE unique_key IS NOT NULL AND state IN ('WAITING', 'SCHEDULED')
                 DO UPDATE SET run_at = CASE WHEN job.error IS NULL THEN LEAST(job.run_at, EXCLUDED.run_at) ELSE job.run_at END,
                               state = CASE WHEN job.error IS NULL AND EXCLUDED.state = 'WAITING' THEN 'WAITING' ELSE job.state END,
                               actor_kind = EXCLUDED.actor_kind, actor_id = EXCLUDED.actor_id, permission = EXCLUDED.permission
                 RETURNING id, state = 'WAITING' AS is_ready",
                &[
                    &org,
                    &JobId::new(),
                    &J::QUEUE.as_str(),
                    &J::KIND,
                    &J::VERSION,
                    &payload(push.job),
                    &push.job.subject(),
                    &push.run_at,
                    &J::ATTEMPTS,
                    &push.key,
                    &J::WATCHED,
                    &actor_kind,
                    &actor_id,
                    &permission::<J>(actor),
                ],
            )
            .await?;
        if row.is_ready {
            tx.emit(Event::jobs_ready(org, J::QUEUE));
        }
        tx.emit(Event::jobs_changed(org));
        Ok(row.id)
    }
}

struct PushedRow {
    id: JobId,
    is_ready: bool,
}

impl domain::base::db::FromRow for PushedRow {
    fn from_row(row: &tokio_postgres::Row) -> Result<Self> {
        Ok(Self { id: row.try_get("id")?, is_ready: row.try_get("is_ready")? })
    }
}

/// Pushes one job, to run as soon as a worker is free. Returns its id.
pub async fn push<J: Job>(tx: &Tx, job: &J) -> Result<JobId> {
    Push::new(job).send(tx).await
}

/// Pushes a batch in one statement. Earlier jobs of the batch have a higher priority. Does nothing if `jobs` is empty.
pub async fn push_all<J: Job>(tx: &Tx, jobs: &[J]) -> Result<()> {
    if jobs.is_empty() {
        return Ok(());
    }
    let (org, actor) = (tx.org(), tx.origin().actor);
    let (actor_kind, actor_id) = actor.columns();
    let ids: Vec<JobId> = jobs.iter().map(|_| Id::new()).collect();
    let payloads: Vec<Value> = jobs.iter().map(payload).collect();
    let subjects: Vec<Option<String>> = jobs.iter().map(Job::subject).collect();
    let priorities: Vec<i32> = (0..jobs.len()).map(priority).collect();
    tx.exec(
        "INSERT INTO job (org_id, id, queue, kind, version, payload, subject, state, priority, run_at,
                          max_attempts, watched, actor_kind, actor_id, permission, queued_at, changed_at)
         SELECT $1, id, $2, $3, $4, payload, subject, 'WAITING', priority, now(),
                $5, $6, $7, $8, $9, now(), now()
         FROM unnest($10::uuid[], $11::jsonb[], $12::text[], $13::int[]) AS batch (id, payload, subject, priority)",
        &[
            &org,
            &J::QUEUE.as_str(),
            &J::KIND,
            &J::VERSION,
            &J::ATTEMPTS,
            &J::WATCHED,
            &actor_kind,
            &actor_id,
            &permission::<J>(actor),
            &ids,
            &payloads,
            &subjects,
            &priorities,
        ],
    )
    .await?;
    tx.emit(Event::jobs_ready(org, J::QUEUE));
    tx.emit(Event::jobs_changed(org));
    Ok(())
}

/// Returns the priority of the job at this index of a batch.
fn priority(index: usize) -> i32 {
    i32::try_from(index / JOBS_PER_PRIORITY).map_or(i32::MIN, |step| -step)
}

/// Returns the permission to store. Jobs of the system store none, because the system cannot lose a permission.
fn permission<J: Job>(actor: Actor) -> Option<&'static str> {
    match actor {
        Actor::System => None,
        Actor::User(_) | Actor::ApiKey(_) => J::PERMISSION.map(Permission::as_str),
    }
}

fn payload<J: Job>(job: &J) -> Value {
    serde_json::to_value(job).expect("a payload is a struct of ids, which JSON can hold")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_lowers_its_priority_step_by_step() {
        assert_eq!([0, 7, 8, 15, 16, 800].map(priority), [0, 0, -1, -1, -2, -100]);
    }
}
