//! Jobs of compliance runs.

use std::time::Duration;

use domain::{
    Id, Result, Tx,
    job::Queue,
    permission::Permission,
    run::{AssetRange, Run, Started},
};
use serde::{Deserialize, Serialize};

use crate::{Job, push_all};

/// Judges one range of a run's assets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanShard {
    /// The run.
    pub run: Id<Run>,
    /// Its assets.
    pub range: AssetRange,
}

impl Job for ScanShard {
    const QUEUE: Queue = Queue::Scan;
    const KIND: &'static str = "scan.shard";
    const TIMEOUT: Duration = Duration::from_mins(5);
    const PERMISSION: Option<Permission> = Some(Permission::ComplianceRun);
    const WATCHED: bool = true;

    fn subject(&self) -> Option<String> {
        Some(self.run.to_string())
    }
}

/// Pushes the shards of a run that has just been started; of one that was started before, nothing.
pub async fn push_shards(tx: &Tx, started: Started) -> Result<Run> {
    match started {
        Started::Before(run) => Ok(run),
        Started::New(run, ranges) => {
            let shards: Vec<_> =
                ranges.into_iter().map(|range| ScanShard { run: run.id, range }).collect();
            push_all(tx, &shards).await?;
            Ok(run)
        }
    }
}
