//! Handlers of imports. Each chunk (a range of the file's rows) is imported in one transaction, which also completes
//! its job and pushes the next job.

use std::time::Duration;

use chrono::TimeDelta;
use domain::{
    Tx,
    entity::ImportRunId,
    fleet::job::JobState,
    inventory::{
        import::{self, ImportRun, Sweep},
        owners::Owners,
    },
};
use jobs::{
    Failure,
    inventory::import::{ImportChunk, ImportSweep, push_sweep},
    job::Ended,
    push,
};

use crate::{context::Context, maintenance::TaskContext};

/// Delay before the next sweep of a run that is still in progress.
const SWEEP_AGAIN_AFTER: Duration = Duration::from_mins(10);

/// Imports the rows of a chunk. Then pushes the job of the next chunk, or the sweep after the last one.
pub async fn chunk(context: Context, job: ImportChunk) -> Result<(), Failure> {
    let owners = Owners::allowed_if(context.may(Owners::PERMISSION).await?);
    let tx = context.finish().await?;
    if let Some(begun) = ImportRun::begin_chunk(&tx, job.run, job.place).await? {
        let outcome = import::apply(&tx, &begun, owners, context.now()).await?;
        match ImportRun::close_chunk(&tx, &begun, &outcome, context.now()).await? {
            Some(place) => {
                push(&tx, &ImportChunk { run: job.run, place }).await?;
            }
            None => push_sweep(&tx, job.run).await?,
        }
    }
    tx.commit().await?;
    Ok(())
}

/// Marks the run as failed after one of its chunks was buried (dead-lettered), discarded or cancelled. The rows of
/// earlier chunks stay imported.
pub async fn chunk_ended(context: Context, ended: Ended) -> Result<(), Failure> {
    let subject = ended.subject.unwrap_or_default();
    let run = subject.parse::<ImportRunId>().map_err(|error| Failure::abort(error.to_string()))?;
    let tx = context.finish().await?;
    fail_run(&tx, run, ended.outcome, ended.error, &context).await?;
    push_sweep(&tx, run).await?;
    tx.commit().await?;
    Ok(())
}

async fn fail_run(
    tx: &Tx,
    run: ImportRunId,
    outcome: JobState,
    error: Option<String>,
    context: &Context,
) -> domain::Result<()> {
    let outcome = outcome.as_str().to_lowercase();
    let because = error.map(|error| format!(": {error}")).unwrap_or_default();
    let done = ImportRun::get(tx, run).await?.done;
    let reason = format!(
        "the job for the next rows was {outcome}{because}; {done} rows were processed before it"
    );
    ImportRun::fail(tx, run, &reason, context.now()).await
}

/// Deletes the working data of a run that has ended. Snoozes while the run is in progress.
pub async fn sweep(context: Context, job: ImportSweep) -> Result<(), Failure> {
    loop {
        let tx = context.write().await?;
        let swept = ImportRun::sweep(&tx, job.run, context.now()).await?;
        tx.commit().await?;
        match swept {
            Sweep::More => {}
            Sweep::InProgress => {
                return Err(Failure::snooze("the import is still in progress", SWEEP_AGAIN_AFTER));
            }
            Sweep::Done => break,
        }
    }
    context.finish().await?.commit().await?;
    Ok(())
}

/// Deletes ended import runs that are older than the retention. Each transaction deletes a few, because a run may have
/// thousands of errors.
pub(crate) async fn delete_old(context: TaskContext) -> domain::Result<()> {
    loop {
        let tx = context.db.fleet().await?;
        let before = tx.now().await? - TimeDelta::days(context.retention.history_days.into());
        let deleted = ImportRun::delete_ended(&tx, before).await?;
        tx.commit().await?;
        if deleted == 0 {
            return Ok(());
        }
    }
}
