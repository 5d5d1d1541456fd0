//! Jobs of imports: chunk after chunk, and clearing away what is left.

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

/// Imports one chunk of a run, and asks for the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportChunk {
    /// The run.
    pub run: ImportRunId,
    /// Which chunk, from 0.
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

/// Clears away what a run no longer needs once it has ended; ends it where its upload was abandoned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportSweep {
    /// The run.
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

/// In the transaction that opens a run: if nobody goes on with it, it ends all the same.
pub async fn push_look(tx: &Tx, run: ImportRunId, now: DateTime<Utc>) -> Result<()> {
    sweep(tx, run, Some(now + ImportRun::ABANDONED + TimeDelta::minutes(1))).await
}

/// In the transaction that ends a run.
pub async fn push_sweep(tx: &Tx, run: ImportRunId) -> Result<()> {
    sweep(tx, run, None).await
}

async fn sweep(tx: &Tx, run: ImportRunId, at: Option<DateTime<Utc>>) -> Result<()> {
    let (job, key) = (ImportSweep { run }, run.to_string());
    let order = Push::new(&job).key(&key);
    match at {
        Some(at) => order.run_at(at).send(tx).await?,
        None => order.send(tx).await?,
    };
    Ok(())
}

/// In the transaction in which a run was received whole.
pub async fn push_first(tx: &Tx, run: &ImportRun) -> Result<()> {
    if !run.state.has_ended() {
        push(tx, &ImportChunk { run: run.id, place: 0 }).await?;
    }
    Ok(())
}
