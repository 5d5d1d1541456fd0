//! Pushing jobs, in the transaction of the change that wants them: a job exists if and only if the change does.
//!
//! With a key, a push is merged with the job of that key that still waits (`ON CONFLICT … DO UPDATE`): the waiting job
//! stays locked until this transaction ends, so it cannot start before the change that it is to see. A batch lowers the
//! priority step by step along itself, so that whoever comes later with little overtakes its tail.
//!
//! The wake-up is sent after the commit by way of the transaction's events; no NOTIFY, which would serialise commits.

use chrono::{DateTime, Utc};
use domain::{
    Actor, Id, Result, Tx,
    access::permission::Permission,
    base::{db::Kind, event::Event},
    entity::{JobId, OrganizationId},
};
use serde_json::Value;

use crate::job::Job;

/// So many jobs of a batch share a priority.
const STEP: usize = 8;

/// A job about to be pushed.
#[derive(Debug)]
#[must_use = "a push does nothing until it is sent"]
pub struct Push<'a, J> {
    job: &'a J,
    key: Option<&'a str>,
    run_at: Option<DateTime<Utc>>,
}

impl<'a, J: Job> Push<'a, J> {
    /// As soon as a worker is free, for the organization and the actor of the transaction.
    pub const fn new(job: &'a J) -> Self {
        Self { job, key: None, run_at: None }
    }

    /// Merged with the job of this key that still waits, if there is one: the earlier time counts, unless it waits
    /// because it failed, and it runs for the later actor.
    pub const fn key(mut self, key: &'a str) -> Self {
        self.key = Some(key);
        self
    }

    /// Not before this time.
    pub const fn run_at(mut self, run_at: DateTime<Utc>) -> Self {
        self.run_at = Some(run_at);
        self
    }

    /// For this actor of this organization, in a transaction of whatever kind.
    pub const fn on_behalf(self, org: OrganizationId, actor: Actor) -> OnBehalf<'a, J> {
        OnBehalf { push: self, org, actor }
    }

    /// Inserts it; the id is that of the waiting job where the two were merged.
    pub async fn send(self, tx: &Tx) -> Result<JobId> {
        self.on_behalf(tx.org(), tx.origin().actor).send(tx).await
    }
}

/// A job about to be pushed for an actor of an organization.
#[derive(Debug)]
#[must_use = "a push does nothing until it is sent"]
pub struct OnBehalf<'a, J> {
    push: Push<'a, J>,
    org: OrganizationId,
    actor: Actor,
}

impl<J: Job> OnBehalf<'_, J> {
    /// As [`Push::send`].
    pub async fn send<K: Kind>(self, tx: &Tx<K>) -> Result<JobId> {
        let Self { push, org, actor } = self;
        let (actor_kind, actor_id) = actor.columns();
        let row: Merged = tx
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
            tx.emit(Event::ready(org, J::QUEUE));
        }
        tx.emit(Event::jobs(org));
        Ok(row.id)
    }
}

struct Merged {
    id: JobId,
    is_ready: bool,
}

impl domain::base::db::FromRow for Merged {
    fn from_row(row: &tokio_postgres::Row) -> Result<Self> {
        Ok(Self { id: row.try_get("id")?, is_ready: row.try_get("is_ready")? })
    }
}

/// Pushes one job, to be run as soon as a worker is free.
pub async fn push<J: Job>(tx: &Tx, job: &J) -> Result<JobId> {
    Push::new(job).send(tx).await
}

/// Pushes a batch in one statement; its first jobs come first.
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
    tx.emit(Event::ready(org, J::QUEUE));
    tx.emit(Event::jobs(org));
    Ok(())
}

/// The priority of the job at this place of a batch.
fn priority(place: usize) -> i32 {
    i32::try_from(place / STEP).map_or(i32::MIN, |step| -step)
}

/// The system's own jobs need no permission: nobody could lose it.
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
