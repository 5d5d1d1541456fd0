//! What is to be done at which times. (`schedule/cron`: the expressions; `schedule/zone`: the names of time zones;
//! `schedule/due`: what has come.)
//!
//! Any worker claims what is due; rows are locked and left out by the others, so there is no leader to lose. A tick is a
//! time by the clock of the expression; it is run up to a minute later, always the same for a schedule, so that those of
//! many organizations at midnight do not all come at once. Ticks are at least a minute apart, so none runs into the next.
//! What was missed while nobody looked is done once, not once a tick.
//!
//! Time is Postgres': workers whose clocks are wrong claim neither early nor twice. Whoever saved a schedule last is who
//! its runs are done for, and must still have the right to it then.

use async_graphql::{InputObject, SimpleObject};
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use serde::Serialize;
use serde_json::Value;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    access::{audit::Entry, directive::requires, permission::Permission, viewer::Viewer},
    base::{
        actor::Actor,
        db::{FromRow, Tx},
        entity::{self, Entity, ScheduleId},
        error::{Error, FieldError, Result},
        event::Event,
        id::Id,
        text::{self, text_enum},
    },
};

mod cron;
mod due;
mod zone;

pub use cron::Cron;
pub use due::Tick;

/// Within so long after its tick a run begins.
const SPREAD_MS: u64 = 60_000;

text_enum! {
    /// What a schedule does.
    ScheduleAction in "schedule"."action" {
        /// Starts a compliance run of all assets.
        ComplianceRun = "COMPLIANCE_RUN",
    }
}

impl ScheduleAction {
    /// What it takes, from whoever saves the schedule and when it is run.
    pub const fn permission(self) -> Permission {
        match self {
            Self::ComplianceRun => Permission::ComplianceRun,
        }
    }
}

/// What is to be done at which times.
#[derive(Debug, Clone, PartialEq, Eq, SimpleObject, Serialize)]
#[serde(rename_all = "camelCase")]
#[graphql(name = "ScheduleRow", directive = requires::apply(Permission::JobRead))]
pub struct Schedule {
    /// Its id.
    #[serde(skip)]
    pub id: ScheduleId,
    /// Its name, unique in the organization.
    pub name: String,
    /// When: minute, hour, day, month and weekday, as in a crontab.
    pub cron: String,
    /// By the clocks of which place, e.g. `Europe/Berlin`.
    pub time_zone: String,
    /// What it does.
    pub action: ScheduleAction,
    /// Whether it does it.
    pub enabled: bool,
    /// Who saved it last: its runs are done for them, as long as they may.
    #[graphql(skip)]
    #[serde(skip)]
    pub actor: Actor,
    /// The tick that is next.
    #[graphql(skip)]
    #[serde(skip)]
    pub next_tick: Option<DateTime<Utc>>,
    /// When it last began.
    #[serde(skip)]
    pub last_run_at: Option<DateTime<Utc>>,
    /// When it will begin next: up to a minute after the time of the expression, always the same. Null where it is disabled.
    #[serde(skip)]
    pub next_run_at: Option<DateTime<Utc>>,
    /// When it was made.
    #[serde(skip)]
    pub created_at: DateTime<Utc>,
    /// When it was last saved.
    #[serde(skip)]
    pub updated_at: DateTime<Utc>,
}

fn actor(row: &Row) -> Result<Actor> {
    let actor_id: Option<Uuid> = row.try_get("actor_id")?;
    Actor::from_columns(row.try_get("actor_kind")?, actor_id)
        .ok_or(Error::Corrupt { table: "schedule", column: "actor_kind" })
}

impl FromRow for Schedule {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            cron: row.try_get("cron")?,
            time_zone: row.try_get("time_zone")?,
            action: ScheduleAction::from_column(row.try_get("action")?)?,
            enabled: row.try_get("enabled")?,
            actor: actor(row)?,
            next_tick: row.try_get("next_tick")?,
            last_run_at: row.try_get("last_run_at")?,
            next_run_at: row.try_get("next_run_at")?,
            created_at: row.try_get("created_at")?,
            updated_at: row.try_get("updated_at")?,
        })
    }
}

/// What to do at which times; what is left out has its default, also where the schedule exists.
#[derive(Debug, Clone, InputObject)]
pub struct ScheduleInput {
    /// Its name, up to 255 characters: the schedule of this name is changed, or made.
    pub name: String,
    /// When: minute, hour, day, month and weekday, as in a crontab. `0 2 * * *` is every night at two.
    pub cron: String,
    /// By the clocks of which place, as IANA calls it, e.g. `Europe/Berlin`. What is at certain hours is done
    /// once a day: skipped by a clock put forward, when it goes on; repeated by one put back, the first time. What is at
    /// every hour counts the hours that pass.
    #[graphql(default_with = "\"UTC\".to_owned()")]
    pub time_zone: String,
    /// What to do.
    pub action: ScheduleAction,
    /// Whether to do it.
    #[graphql(default = true)]
    pub enabled: bool,
}

const SELECT: &str = "SELECT id, name, cron, time_zone, action, enabled, actor_kind, actor_id, next_tick, last_run_at,
    next_run_at, created_at, updated_at FROM schedule";

impl Schedule {
    /// The schedule, or `None`.
    pub async fn find(tx: &Tx, id: ScheduleId) -> Result<Option<Self>> {
        tx.opt(&format!("{SELECT} WHERE id = $1"), &[&id]).await
    }

    /// The organization's schedules, by name.
    pub async fn list(tx: &Tx) -> Result<Vec<Self>> {
        tx.all(&format!("{SELECT} ORDER BY name"), &[]).await
    }

    /// Makes the schedule of that name, or changes it. `now` is Postgres' time ([`Tx::now`]).
    ///
    /// # Errors
    /// `Forbidden` for an action that the viewer may not do; `Invalid` with what is wrong with the expression, also one
    /// that never comes, or the time zone.
    pub async fn save(
        tx: &Tx,
        viewer: &Viewer,
        input: &ScheduleInput,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let permission = input.action.permission();
        if !viewer.may(permission) {
            return Err(Error::Forbidden(format!(
                "nobody schedules what they may not do: {} takes {permission}",
                input.action.as_str()
            )));
        }
        let now = now.trunc_subsecs(6); // As Postgres keeps it.
        let mut faults = Vec::new();
        let name = text::check("input.name", &input.name, text::NAME, &mut faults);
        let clock = Clock::parse(&input.cron, &input.time_zone, now, &mut faults);
        let Some(clock) = clock.filter(|_| faults.is_empty()) else {
            return Err(Error::Invalid(faults));
        };
        let locked = format!("{SELECT} WHERE name = $1 FOR UPDATE");
        let before: Option<Self> = tx.opt(&locked, &[&name]).await?;
        let id = before.as_ref().map_or_else(Id::new, |schedule| schedule.id);
        let mut after = Self {
            id,
            name,
            cron: input.cron.split_whitespace().collect::<Vec<_>>().join(" "),
            time_zone: clock.zone.name().to_owned(),
            action: input.action,
            enabled: input.enabled,
            actor: viewer.actor,
            next_tick: None,
            last_run_at: before.as_ref().and_then(|schedule| schedule.last_run_at),
            next_run_at: None,
            created_at: before.as_ref().map_or(now, |schedule| schedule.created_at),
            updated_at: now,
        };
        let goes_on = before.as_ref().filter(|before| {
            before.enabled && (&before.cron, &before.time_zone) == (&after.cron, &after.time_zone)
        });
        after.next_tick = match goes_on {
            _ if !after.enabled => None,
            // Saved between a tick and its run, it must not lose the run.
            Some(before) => before.next_tick,
            None => clock.cron.next(now, clock.zone),
        };
        after.next_run_at = after.next_tick.map(|tick| tick + spread(id));
        if let Some(before) = &before
            && *before == (Self { updated_at: before.updated_at, ..after.clone() })
        {
            return Ok(before.clone());
        }
        after.store(tx).await?;
        let entry = match &before {
            None => Entry::created("schedule.created", id, &after.snapshot()),
            Some(before) => {
                Entry::changed("schedule.updated", id, before.snapshot(), after.snapshot())
            }
        };
        entry.record(tx, now).await?;
        tx.emit(Event::changed(tx.org(), id));
        Ok(after)
    }

    /// Deletes it; what it has started goes on.
    pub async fn delete(tx: &Tx, id: ScheduleId, now: DateTime<Utc>) -> Result<()> {
        let schedule: Self = tx
            .opt(&format!("{SELECT} WHERE id = $1 FOR UPDATE"), &[&id])
            .await?
            .ok_or_else(|| Error::not_found(entity::Schedule::NAME, id))?;
        tx.exec("DELETE FROM schedule WHERE id = $1", &[&id]).await?;
        Entry::deleted("schedule.deleted", id, schedule.snapshot()).record(tx, now).await?;
        tx.emit(Event::changed(tx.org(), id));
        Ok(())
    }

    async fn store(&self, tx: &Tx) -> Result<()> {
        let (actor_kind, actor_id) = self.actor.columns();
        tx.exec(
            "INSERT INTO schedule (org_id, id, name, cron, time_zone, action, enabled, actor_kind, actor_id,
                                   next_tick, next_run_at, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
             ON CONFLICT (org_id, id) DO UPDATE
             SET cron = $4, time_zone = $5, action = $6, enabled = $7, actor_kind = $8, actor_id = $9,
                 next_tick = $10, next_run_at = $11, updated_at = $13",
            &[
                &tx.org(),
                &self.id,
                &self.name,
                &self.cron,
                &self.time_zone,
                &self.action.as_str(),
                &self.enabled,
                &actor_kind,
                &actor_id,
                &self.next_tick,
                &self.next_run_at,
                &self.created_at,
                &self.updated_at,
            ],
        )
        .await?;
        Ok(())
    }

    fn snapshot(&self) -> Value {
        serde_json::to_value(self).expect("a schedule is plain data")
    }
}

/// An expression and the clocks it goes by.
struct Clock {
    cron: Cron,
    zone: chrono_tz::Tz,
}

impl Clock {
    /// Reads both, and refuses what never comes.
    fn parse(
        cron: &str,
        zone: &str,
        now: DateTime<Utc>,
        faults: &mut Vec<FieldError>,
    ) -> Option<Self> {
        let too_long = cron.chars().count() > 255;
        let cron = if too_long {
            Err(vec![FieldError::new("input.cron", "has more than 255 characters")])
        } else {
            Cron::parse(cron, "input.cron")
        };
        let cron = cron.map_err(|more| faults.extend(more)).ok();
        let zone = zone::parse(zone, "input.timeZone").map_err(|fault| faults.push(fault)).ok();
        let (cron, zone) = (cron?, zone?);
        if cron.next(now, zone).is_none() {
            faults.push(FieldError {
                suggestion: Some("0 2 28 2 *".to_owned()),
                ..FieldError::new(
                    "input.cron",
                    "never comes: no date is such a day in such a month",
                )
            });
        }
        Some(Self { cron, zone })
    }

    /// Those of a row; `None` where this version cannot read them.
    fn of_row(row: &Row) -> Result<Option<Self>> {
        let (cron, zone): (&str, &str) = (row.try_get("cron")?, row.try_get("time_zone")?);
        let cron = Cron::parse(cron, "cron").ok();
        let zone = zone.parse().ok();
        Ok(cron.zip(zone).map(|(cron, zone)| Self { cron, zone }))
    }
}

/// How long after its ticks a schedule runs: less than a minute, by chance of its id.
fn spread(id: ScheduleId) -> TimeDelta {
    let (_, chance) = id.uuid().as_u64_pair();
    // The lower half of the id is random but for its two highest bits.
    TimeDelta::milliseconds(
        i64::try_from((chance & (u64::MAX >> 2)) % SPREAD_MS).unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_even_and_below_a_minute() {
        let mut tenths = [0; 10];
        for _ in 0..10_000 {
            let id = Id::new();
            let spread_ms = spread(id).num_milliseconds();
            assert!(
                (0..60_000).contains(&spread_ms)
                    && spread(id) == TimeDelta::milliseconds(spread_ms)
            );
            tenths[usize::try_from(spread_ms / 6000).unwrap()] += 1;
        }
        assert!(tenths.iter().all(|share| (800..1200).contains(share)), "{tenths:?}");
    }
}
