//! Jobs of schedules.
//!
//! The fleet says when, a wing does what: the job of a tick is known here by its kind, and its handler stands in the wing
//! (`workers/compliance/run`), which may know the fleet. A new action is a new job here and a handler there.

use chrono::{DateTime, Utc};
use domain::{
    Result, Tx,
    access::permission::Permission,
    base::db::Fleet,
    entity::ScheduleId,
    fleet::{
        job::Queue,
        schedule::{Schedule, ScheduleAction, Tick},
    },
};
use serde::{Deserialize, Serialize};

use crate::{job::Job, queue::push::Push};

/// Ticks claimed at a time.
const BATCH: i64 = 200;

/// Starts the compliance run of a tick.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduledRun {
    /// The schedule.
    pub schedule: ScheduleId,
    /// The same for the same tick, and for no other.
    pub key: String,
}

impl Job for ScheduledRun {
    const QUEUE: Queue = Queue::Scan;
    const KIND: &'static str = "scan.scheduled";
    const PERMISSION: Option<Permission> = Some(Permission::ComplianceRun);

    fn subject(&self) -> Option<String> {
        Some(self.schedule.to_string())
    }
}

/// Claims what is due and pushes what it says, in one transaction; returns how many ticks that were. Any
/// number of processes may call this at once.
pub async fn push_due(tx: &Tx<Fleet>, now: DateTime<Utc>) -> Result<usize> {
    let ticks = Schedule::claim_due(tx, now, BATCH).await?;
    for tick in &ticks {
        push(tx, tick).await?;
    }
    Ok(ticks.len())
}

async fn push(tx: &Tx<Fleet>, tick: &Tick) -> Result<()> {
    match tick.action {
        ScheduleAction::ComplianceRun => {
            let job = ScheduledRun { schedule: tick.schedule, key: tick.key() };
            // While nobody takes from the queue, ticks melt into one.
            let key = tick.schedule.to_string();
            Push::new(&job).key(&key).on_behalf(tick.org, tick.actor).send(tx).await.map(drop)
        }
    }
}
