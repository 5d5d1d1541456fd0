//! Jobs of compliance runs.

use std::time::Duration;

use domain::{
    Result, Tx,
    access::permission::Permission,
    compliance::{
        range::AssetRange,
        run::{Run, Started},
    },
    entity::RunId,
    fleet::{job::Queue, pending::JobKind},
};
use serde::{Deserialize, Serialize};

use crate::{job::Job, queue::push::push_all};

/// Judges one range of a run's assets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunShard {
    /// The run.
    pub run: RunId,
    /// Which of its rounds: others are over.
    #[serde(default = "first_round")]
    pub round: i16,
    /// Its assets.
    pub range: AssetRange,
}

const fn first_round() -> i16 {
    1
}

impl Job for RunShard {
    const QUEUE: Queue = Queue::Scan;
    const KIND: &'static str = JobKind::RUN_SHARD.as_str();
    /// A worker of before judges by two rules and keeps no posture.
    const VERSION: i16 = 2;
    const READS: &'static [i16] = &[1, 2];
    const TIMEOUT: Duration = Duration::from_mins(5);
    const PERMISSION: Option<Permission> = Some(Permission::ComplianceRun);
    const WATCHED: bool = true;

    fn subject(&self) -> Option<String> {
        Some(self.run.to_string())
    }
}

/// Pushes the shards of a run that begins; of one that was started before, nothing.
pub async fn push_shards(tx: &Tx, started: Started) -> Result<Run> {
    match started {
        Started::Existing(run) => Ok(run),
        Started::New(run, ranges) => {
            let shards: Vec<_> = ranges
                .into_iter()
                .map(|range| RunShard { run: run.id, round: run.round, range })
                .collect();
            push_all(tx, &shards).await?;
            Ok(*run)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compliance::posture::{Reevaluate, Refresh};

    #[test]
    fn the_kinds_that_the_domain_asks_for_are_those_that_are_pushed() {
        let pushed = [RunShard::KIND, Reevaluate::KIND, Refresh::KIND];
        assert_eq!(
            pushed,
            [JobKind::RUN_SHARD, JobKind::REEVALUATE, JobKind::REFRESH].map(JobKind::as_str)
        );
        // Jobs of earlier versions wait under these.
        assert_eq!(pushed, ["scan.shard", "scan.follow", "scan.refresh"]);
    }
}
