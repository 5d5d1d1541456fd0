//! Jobs of compliance runs, one per shard. A shard is a range of the assets of a run.

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

/// Evaluates one shard of a compliance run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunShard {
    /// Id of the compliance run.
    pub run: RunId,
    /// Round of the run that pushed the shard. A run that starts again, because rules changed, enters its next round. A
    /// shard of an earlier round does nothing.
    #[serde(default = "first_round")]
    pub round: i16,
    /// Range of assets in the shard.
    pub range: AssetRange,
}

const fn first_round() -> i16 {
    1
}

impl Job for RunShard {
    const QUEUE: Queue = Queue::Scan;
    const KIND: &'static str = JobKind::RUN_SHARD.as_str();
    /// Version 2, because older workers evaluate only two rules and store no postures.
    const VERSION: i16 = 2;
    const READS: &'static [i16] = &[1, 2];
    const TIMEOUT: Duration = Duration::from_mins(5);
    const PERMISSION: Option<Permission> = Some(Permission::ComplianceRun);
    const WATCHED: bool = true;

    fn subject(&self) -> Option<String> {
        Some(self.run.to_string())
    }
}

/// Pushes one job per shard of a new run, and none if the run already existed. Returns the run.
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
        // Jobs that earlier versions stored have these kinds.
        assert_eq!(pushed, ["scan.shard", "scan.follow", "scan.refresh"]);
    }
}
