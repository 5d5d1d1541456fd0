//! Jobs of schedules.
//!
//! This module decides when a scheduled job runs; the handler of the job decides what it does. The job type is defined
//! here. The handler is in the module of the action (`workers/src/compliance/run.rs`), which may depend on this one. A
//! new action needs a job type here and a handler there.

use chrono::{DateTime, Utc};
use domain::{
    Result, Tx,
    access::permission::Permission,
    base::db::Fleet,
    entity::ScheduleId,
    fleet::{
        job::Queue,
        schedule::{Occurrence, Schedule, ScheduleAction},
    },
};
use serde::{Deserialize, Serialize};

use crate::{job::Job, queue::push::Push};

/// Maximum number of occurrences per claim. An occurrence is a time that the cron expression of a schedule matches.
const BATCH: i64 = 200;

/// Starts the compliance run of one occurrence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduledRun {
    /// Id of the schedule that is due.
    pub schedule: ScheduleId,
    /// Idempotency key of the run, made of the schedule and the occurrence.
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

/// Claims due occurrences and pushes their jobs, in the caller's transaction. Returns the number of occurrences.
/// Several processes may call this at the same time, because each skips the rows that another has locked.
pub async fn push_due(tx: &Tx<Fleet>, now: DateTime<Utc>) -> Result<usize> {
    let occurrences = Schedule::claim_due(tx, now, BATCH).await?;
    for occurrence in &occurrences {
        push(tx, occurrence).await?;
    }
    Ok(occurrences.len())
}

async fn push(tx: &Tx<Fleet>, occurrence: &Occurrence) -> Result<()> {
    match occurrence.action {
        ScheduleAction::ComplianceRun => {
            let job = ScheduledRun { schedule: occurrence.schedule, key: occurrence.key() };
            // Occurrences that accumulate while no worker claims from the queue merge into one job.
            let key = occurrence.schedule.to_string();
            Push::new(&job)
                .key(&key)
                .on_behalf(occurrence.org, occurrence.actor)
                .send(tx)
                .await
                .map(drop)
        }
    }
}
