//! Claiming of due schedules, of all organizations. Any worker can claim any of them. To claim a schedule is to lock
//! its row until the transaction ends (`FOR UPDATE SKIP LOCKED`). Such a claim has no lease, unlike the claim of a job.

use chrono::{DateTime, Utc};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Recurrence, Schedule, ScheduleAction, actor, jitter};
use crate::base::{
    actor::Actor,
    db::{Fleet, Tx},
    entity::{OrganizationId, ScheduleId},
    error::Result,
};

/// A due occurrence of a schedule, i.e. a time that its cron expression matches. The worker that claimed it pushes the
/// job of the action in the same transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occurrence {
    /// The organization that owns the schedule.
    pub org: OrganizationId,
    /// Id of the schedule that is due.
    pub schedule: ScheduleId,
    /// Action of the schedule, to be run now.
    pub action: ScheduleAction,
    /// The actor on whose behalf the action runs. When the job starts, the worker checks that this actor still has the
    /// permission of the action (`ScheduleAction::permission`).
    pub actor: Actor,
    /// Time that the cron expression matched.
    pub at: DateTime<Utc>,
}

impl Occurrence {
    /// Returns the idempotency key of the occurrence, made of schedule and time, so that one occurrence never starts
    /// two runs.
    pub fn key(&self) -> String {
        format!("{}:{}", self.schedule, self.at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
    }
}

impl Schedule {
    /// Claims due schedules, at most `limit`, and moves each to its next occurrence. The rows stay locked until the
    /// transaction ends; rows that another transaction has locked are skipped. Returns one occurrence per schedule:
    /// missed occurrences collapse into a single run. The caller pushes the jobs of the actions in the same
    /// transaction. `now` is Postgres' time ([`Tx::now`]).
    pub async fn claim_due(
        tx: &Tx<Fleet>,
        now: DateTime<Utc>,
        limit: i64,
    ) -> Result<Vec<Occurrence>> {
        let due: Vec<Row> = tx
            .all(
                "SELECT org_id, id, cron, time_zone, action, actor_kind, actor_id, next_tick FROM schedule
                 WHERE enabled AND next_run_at <= $1 ORDER BY next_run_at LIMIT $2 FOR UPDATE SKIP LOCKED",
                &[&now, &limit],
            )
            .await?;
        let (mut occurrences, mut next_runs) = (Vec::new(), NextRuns::default());
        for row in &due {
            let (org, id): (OrganizationId, ScheduleId) =
                (row.try_get("org_id")?, row.try_get("id")?);
            // `next_run_at` is the occurrence plus the jitter, a fixed delay that is derived from the schedule's id. So
            // the runs that are due at `now` belong to occurrences up to `now` minus the jitter, and the next
            // occurrence is the first one after that.
            let next = Recurrence::of_row(row)?
                .and_then(|recurrence| recurrence.cron.next(now - jitter(id), recurrence.zone));
            if next.is_none() {
                tracing::error!(schedule.id = %id, "schedule {id} has no next run: this version cannot parse its cron expression or time zone, or the expression matches no later time; correct its cron expression or time zone, and save it");
            }
            next_runs.push(org, id, next);
            match ScheduleAction::from_column(row.try_get("action")?) {
                Ok(action) => occurrences.push(Occurrence {
                    org,
                    schedule: id,
                    action,
                    actor: actor(row)?,
                    at: row.try_get("next_tick")?,
                }),
                // A schedule with an unknown action must not prevent the other schedules from running.
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, schedule.id = %id, "schedule {id} has an action that only a newer version knows: this run is skipped");
                }
            }
        }
        next_runs.store(tx, now).await?;
        Ok(occurrences)
    }
}

/// Next occurrences and run times of claimed schedules, as columns of one UPDATE.
#[derive(Default)]
struct NextRuns {
    orgs: Vec<Uuid>,
    ids: Vec<Uuid>,
    next_ticks: Vec<Option<DateTime<Utc>>>,
    next_run_ats: Vec<Option<DateTime<Utc>>>,
}

impl NextRuns {
    fn push(&mut self, org: OrganizationId, id: ScheduleId, next: Option<DateTime<Utc>>) {
        self.orgs.push(org.uuid());
        self.ids.push(id.uuid());
        self.next_ticks.push(next);
        self.next_run_ats.push(next.map(|occurrence| occurrence + jitter(id)));
    }

    async fn store(&self, tx: &Tx<Fleet>, now: DateTime<Utc>) -> Result<()> {
        if self.ids.is_empty() {
            return Ok(());
        }
        tx.exec(
            "UPDATE schedule SET last_run_at = $1,
                                 next_tick = next.next_tick, next_run_at = next.next_run_at
             FROM unnest($2::uuid[], $3::uuid[], $4::timestamptz[], $5::timestamptz[])
                  AS next (org_id, id, next_tick, next_run_at)
             WHERE schedule.org_id = next.org_id AND schedule.id = next.id",
            &[&now, &self.orgs, &self.ids, &self.next_ticks, &self.next_run_ats],
        )
        .await?;
        Ok(())
    }
}
