//! Import jobs: the chunks of an import run, one after another, and the clean-up afterwards. A chunk is a range of the
//! rows of the file.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    Result, Tx, access::permission::Permission, entity::ImportRunId, fleet::job::Queue,
    inventory::import::ImportRun,
};
use serde::{Deserialize, Serialize};

use crate::{
    job::Job,
    queue::push::{Push, push},
};

/// Imports one chunk of a run, then pushes the job of the next chunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportChunk {
    /// Id of the import run.
    pub run: ImportRunId,
    /// Index of the chunk within the run, from 0.
    pub place: i32,
}

impl Job for ImportChunk {
    const QUEUE: Queue = Queue::Import;
    const KIND: &'static str = "import.chunk";
    const PERMISSION: Option<Permission> = Some(Permission::AssetImport);
    const WATCHED: bool = true;

    fn subject(&self) -> Option<String> {
        Some(self.run.to_string())
    }
}

/// Deletes the working data of a run that has ended. Marks a run as failed if its upload was abandoned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportSweep {
    /// Id of the import run.
    pub run: ImportRunId,
}

impl Job for ImportSweep {
    const QUEUE: Queue = Queue::Upkeep;
    const KIND: &'static str = "import.sweep";
    const TIMEOUT: Duration = Duration::from_mins(5);

    fn subject(&self) -> Option<String> {
        Some(self.run.to_string())
    }
}

/// Pushes a sweep that runs one minute after the upload counts as abandoned. Call it in the transaction that opens a
/// run, so that the run ends even if the client never continues the upload.
pub async fn push_abandonment_check(tx: &Tx, run: ImportRunId, now: DateTime<Utc>) -> Result<()> {
    push_sweep_at(tx, run, Some(now + ImportRun::ABANDONED_AFTER + TimeDelta::minutes(1))).await
}

/// Pushes a sweep to run as soon as a worker is free. Call it in the transaction that ends a run.
pub async fn push_sweep(tx: &Tx, run: ImportRunId) -> Result<()> {
    push_sweep_at(tx, run, None).await
}

async fn push_sweep_at(tx: &Tx, run: ImportRunId, at: Option<DateTime<Utc>>) -> Result<()> {
    let (job, key) = (ImportSweep { run }, run.to_string());
    let new_job = Push::new(&job).key(&key);
    match at {
        Some(at) => new_job.run_at(at).send(tx).await?,
        None => new_job.send(tx).await?,
    };
    Ok(())
}

/// Pushes the job of a run's first chunk. Call it in the transaction that records the end of the upload. Does nothing
/// if the run has ended.
pub async fn push_first_chunk(tx: &Tx, run: &ImportRun) -> Result<()> {
    if !run.state.has_ended() {
        push(tx, &ImportChunk { run: run.id, place: 0 }).await?;
    }
    Ok(())
}
