//! What has come: the ticks of all organizations' schedules, claimed by whichever worker looks first.

use chrono::{DateTime, Utc};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Clock, Schedule, ScheduleAction, actor, spread};
use crate::base::{
    actor::Actor,
    db::{Fleet, Tx},
    entity::{OrganizationId, ScheduleId},
    error::Result,
};

/// A time that has come: whoever claimed it does what the schedule says, in the same transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tick {
    /// Whose schedule.
    pub org: OrganizationId,
    /// Which.
    pub schedule: ScheduleId,
    /// What to do.
    pub action: ScheduleAction,
    /// For whom, if they still may.
    pub actor: Actor,
    /// The time by the clock of the expression.
    pub at: DateTime<Utc>,
}

impl Tick {
    /// The same for the same tick of the same schedule, and for no other: a key against doing it twice.
    pub fn key(&self) -> String {
        format!("{}:{}", self.schedule, self.at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
    }
}

impl Schedule {
    /// Takes what is due, at most `limit`, and moves each on to its next tick; what another transaction is taking is left
    /// to it. In the transaction, the caller does what the ticks say. `now` is Postgres' time
    /// ([`Tx::now`]).
    pub async fn claim_due(tx: &Tx<Fleet>, now: DateTime<Utc>, limit: i64) -> Result<Vec<Tick>> {
        let due: Vec<Row> = tx
            .all(
                "SELECT org_id, id, cron, time_zone, action, actor_kind, actor_id, next_tick FROM schedule
                 WHERE enabled AND next_run_at <= $1 ORDER BY next_run_at LIMIT $2 FOR UPDATE SKIP LOCKED",
                &[&now, &limit],
            )
            .await?;
        let (mut ticks, mut claims) = (Vec::new(), Claims::default());
        for row in &due {
            let (org, id): (OrganizationId, ScheduleId) =
                (row.try_get("org_id")?, row.try_get("id")?);
            // What is due at `now` was a tick at `now` less the spread: the first one after that is not due yet.
            let next =
                Clock::of_row(row)?.and_then(|clock| clock.cron.next(now - spread(id), clock.zone));
            if next.is_none() {
                tracing::error!(schedule.id = %id, "the schedule {id} has no next time in this version: it stops");
            }
            claims.push(org, id, next);
            match ScheduleAction::from_column(row.try_get("action")?) {
                Ok(action) => ticks.push(Tick {
                    org,
                    schedule: id,
                    action,
                    actor: actor(row)?,
                    at: row.try_get("next_tick")?,
                }),
                // It must not keep the others from their turn.
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, schedule.id = %id, "the schedule {id} is of a newer version");
                }
            }
        }
        claims.store(tx, now).await?;
        Ok(ticks)
    }
}

/// Where claimed schedules go on.
#[derive(Default)]
struct Claims {
    orgs: Vec<Uuid>,
    ids: Vec<Uuid>,
    next_ticks: Vec<Option<DateTime<Utc>>>,
    next_run_ats: Vec<Option<DateTime<Utc>>>,
}

impl Claims {
    fn push(&mut self, org: OrganizationId, id: ScheduleId, next: Option<DateTime<Utc>>) {
        self.orgs.push(org.uuid());
        self.ids.push(id.uuid());
        self.next_ticks.push(next);
        self.next_run_ats.push(next.map(|tick| tick + spread(id)));
    }

    async fn store(&self, tx: &Tx<Fleet>, now: DateTime<Utc>) -> Result<()> {
        if self.ids.is_empty() {
            return Ok(());
        }
        tx.exec(
            "UPDATE schedule SET last_run_at = $1,
                                 next_tick = claim.next_tick, next_run_at = claim.next_run_at
             FROM unnest($2::uuid[], $3::uuid[], $4::timestamptz[], $5::timestamptz[])
                  AS claim (org_id, id, next_tick, next_run_at)
             WHERE schedule.org_id = claim.org_id AND schedule.id = claim.id",
            &[&now, &self.orgs, &self.ids, &self.next_ticks, &self.next_run_ats],
        )
        .await?;
        Ok(())
    }
}
