//! Schedules: actions that run at the times of a cron expression.
//!
//! | file | contents |
//! |---|---|
//! | `cron` | cron expressions |
//! | `zone` | names of time zones |
//! | `due` | claiming of due schedules |
//!
//! An *occurrence* is a time that the cron expression of a schedule matches. The run of an occurrence starts up to a
//! minute later: `next_run_at` = occurrence + jitter. The jitter is constant per schedule, so that schedules of many
//! organizations at midnight do not all start at the same time. Occurrences are at least a minute apart, so a run
//! starts before the next occurrence. Occurrences that were missed while no worker was running are made up for by a
//! single run.
//!
//! Any worker can claim due schedules, of all organizations, because workers skip rows that another worker has locked.
//! So there is no leader that could fail.
//!
//! All times are Postgres' own: a worker with a wrong clock claims neither too early nor twice. Runs are executed on
//! behalf of the actor who saved the schedule last. When a run starts, the worker checks that this actor still has the
//! permission of the action.

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
pub use due::Occurrence;

/// Upper limit of the jitter, in milliseconds.
const MAX_JITTER_MS: u64 = 60_000;

text_enum! {
    /// Action that a schedule runs.
    ScheduleAction in "schedule"."action" {
        /// Start a compliance run of all assets.
        ComplianceRun = "COMPLIANCE_RUN",
    }
}

impl ScheduleAction {
    /// Returns the permission of the action. The actor who saves the schedule must have it, and must still have it at
    /// each run.
    pub const fn permission(self) -> Permission {
        match self {
            Self::ComplianceRun => Permission::ComplianceRun,
        }
    }
}

/// A schedule: an action that runs at the times of a cron expression.
#[derive(Debug, Clone, PartialEq, Eq, SimpleObject, Serialize)]
#[serde(rename_all = "camelCase")]
#[graphql(name = "ScheduleRow", directive = requires::apply(Permission::JobRead))]
pub struct Schedule {
    /// The schedule's id, beginning `sch_`.
    #[serde(skip)]
    pub id: ScheduleId,
    /// Name of the schedule, unique in the organization.
    pub name: String,
    /// Cron expression: minute, hour, day, month and weekday, as in a crontab.
    pub cron: String,
    /// IANA name of the expression's time zone, e.g. `Europe/Berlin`.
    pub time_zone: String,
    /// The action that the schedule runs.
    pub action: ScheduleAction,
    /// True if the schedule is enabled.
    pub enabled: bool,
    /// The actor who saved the schedule last. Runs are executed on behalf of this actor, and only while the actor has
    /// the permission of the action.
    #[graphql(skip)]
    #[serde(skip)]
    pub actor: Actor,
    /// Next occurrence, i.e. time that the expression matches. `None` if the schedule is disabled, or if this version
    /// finds no such time.
    #[graphql(skip)]
    #[serde(skip)]
    pub next_tick: Option<DateTime<Utc>>,
    /// Time of the last run; null before the first.
    #[serde(skip)]
    pub last_run_at: Option<DateTime<Utc>>,
    /// Time of the next run: the next time that the expression matches, plus a delay of up to a minute that is constant
    /// per schedule. Null if the schedule is disabled, or if its expression matches no later time.
    #[serde(skip)]
    pub next_run_at: Option<DateTime<Utc>>,
    /// Time at which the schedule was created.
    #[serde(skip)]
    pub created_at: DateTime<Utc>,
    /// Time at which the schedule was last changed.
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

/// Input of `saveSchedule`. Omitted fields get their default, even if the schedule exists.
#[derive(Debug, Clone, InputObject)]
pub struct ScheduleInput {
    /// Name of the schedule, up to 255 characters. Replaces the schedule with this name, or creates it.
    pub name: String,
    /// Cron expression: minute, hour, day, month and weekday, as in a crontab. `0 2 * * *` runs every night at two.
    pub cron: String,
    /// IANA name of the time zone, e.g. `Europe/Berlin`; default UTC. If the hour field of the expression matches only
    /// some hours, the action runs once per scheduled time. A time that the clock skips runs right after the gap. A
    /// time that occurs twice runs at the first occurrence. If the hour field matches every hour, elapsed hours count:
    /// skipped hours do not run, and repeated hours run twice.
    #[graphql(default_with = "\"UTC\".to_owned()")]
    pub time_zone: String,
    /// Action that the schedule runs.
    pub action: ScheduleAction,
    /// True to enable the schedule; default true.
    #[graphql(default = true)]
    pub enabled: bool,
}

const SELECT: &str = "SELECT id, name, cron, time_zone, action, enabled, actor_kind, actor_id, next_tick, last_run_at,
    next_run_at, created_at, updated_at FROM schedule";

impl Schedule {
    /// Returns the schedule; `None` if there is no such schedule.
    pub async fn find(tx: &Tx, id: ScheduleId) -> Result<Option<Self>> {
        tx.opt(&format!("{SELECT} WHERE id = $1"), &[&id]).await
    }

    /// Returns the organization's schedules, by name.
    pub async fn list(tx: &Tx) -> Result<Vec<Self>> {
        tx.all(&format!("{SELECT} ORDER BY name"), &[]).await
    }

    /// Creates the schedule with the name, or replaces its settings. `now` is Postgres' time ([`Tx::now`]).
    ///
    /// # Errors
    /// `Forbidden` if the viewer lacks the permission of the action; `Invalid` for errors in the name, the expression
    /// or the time zone, and for an expression that never matches.
    pub async fn save(
        tx: &Tx,
        viewer: &Viewer,
        input: &ScheduleInput,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let permission = input.action.permission();
        if !viewer.may(permission) {
            return Err(Error::Forbidden(format!(
                "scheduling {} requires {permission}, which you lack",
                input.action.as_str()
            )));
        }
        let now = now.trunc_subsecs(6); // The precision that Postgres stores.
        let mut faults = Vec::new();
        let name = text::check("input.name", &input.name, text::NAME, &mut faults);
        let recurrence = Recurrence::parse(&input.cron, &input.time_zone, now, &mut faults);
        let Some(recurrence) = recurrence.filter(|_| faults.is_empty()) else {
            return Err(Error::Invalid(faults));
        };
        let locked = format!("{SELECT} WHERE name = $1 FOR UPDATE");
        let before: Option<Self> = tx.opt(&locked, &[&name]).await?;
        let id = before.as_ref().map_or_else(Id::new, |schedule| schedule.id);
        let mut after = Self {
            id,
            name,
            cron: input.cron.split_whitespace().collect::<Vec<_>>().join(" "),
            time_zone: recurrence.zone.name().to_owned(),
            action: input.action,
            enabled: input.enabled,
            actor: viewer.actor,
            next_tick: None,
            last_run_at: before.as_ref().and_then(|schedule| schedule.last_run_at),
            next_run_at: None,
            created_at: before.as_ref().map_or(now, |schedule| schedule.created_at),
            updated_at: now,
        };
        let unchanged = before.as_ref().filter(|before| {
            before.enabled && (&before.cron, &before.time_zone) == (&after.cron, &after.time_zone)
        });
        after.next_tick = match unchanged {
            _ if !after.enabled => None,
            // A schedule that is saved between an occurrence and its run must not lose the run.
            Some(before) => before.next_tick,
            None => recurrence.cron.next(now, recurrence.zone),
        };
        after.next_run_at = after.next_tick.map(|occurrence| occurrence + jitter(id));
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
        entry.record(tx).await?;
        tx.emit(Event::changed(tx.org(), id));
        Ok(after)
    }

    /// Deletes a schedule. Runs that it has started continue.
    pub async fn delete(tx: &Tx, id: ScheduleId) -> Result<()> {
        let schedule: Self = tx
            .opt(&format!("{SELECT} WHERE id = $1 FOR UPDATE"), &[&id])
            .await?
            .ok_or_else(|| Error::not_found(entity::Schedule::NAME, id))?;
        tx.exec("DELETE FROM schedule WHERE id = $1", &[&id]).await?;
        Entry::deleted("schedule.deleted", id, schedule.snapshot()).record(tx).await?;
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

/// Recurrence of a schedule: a cron expression and its time zone.
struct Recurrence {
    cron: Cron,
    zone: chrono_tz::Tz,
}

impl Recurrence {
    /// Parses the expression and the name of the zone, and rejects an expression that never matches. Adds the errors to
    /// `faults` and returns `None` if the expression or the name cannot be parsed.
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
                    "never matches: no such day exists in the given months",
                )
            });
        }
        Some(Self { cron, zone })
    }

    /// Parses the columns of a row. Returns `None` if this version cannot parse them.
    fn of_row(row: &Row) -> Result<Option<Self>> {
        let (cron, zone): (&str, &str) = (row.try_get("cron")?, row.try_get("time_zone")?);
        let cron = Cron::parse(cron, "cron").ok();
        let zone = zone.parse().ok();
        Ok(cron.zip(zone).map(|(cron, zone)| Self { cron, zone }))
    }
}

/// Returns the jitter of the schedule, i.e. the delay between an occurrence and its run: less than a minute, derived
/// from the id.
fn jitter(id: ScheduleId) -> TimeDelta {
    let (_, random_bits) = id.uuid().as_u64_pair();
    // The lower half of the id is random except for its two highest bits.
    TimeDelta::milliseconds(
        i64::try_from((random_bits & (u64::MAX >> 2)) % MAX_JITTER_MS).unwrap_or_default(),
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
            let jitter_ms = jitter(id).num_milliseconds();
            assert!(
                (0..60_000).contains(&jitter_ms)
                    && jitter(id) == TimeDelta::milliseconds(jitter_ms)
            );
            tenths[usize::try_from(jitter_ms / 6000).unwrap()] += 1;
        }
        assert!(tenths.iter().all(|share| (800..1200).contains(share)), "{tenths:?}");
    }
}
