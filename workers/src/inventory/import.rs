//! Imports: each chunk in the transaction that also ends its job and asks for the next.

use std::time::Duration;

use chrono::TimeDelta;
use domain::{
    Tx,
    entity::ImportRunId,
    fleet::job::JobState,
    inventory::import::{self, ImportRun, Sweep},
};
use jobs::{
    Failure,
    inventory::import::{ImportChunk, ImportSweep, push_sweep},
    job::Ended,
    push,
};

use crate::{context::Context, maintenance::Round};

/// Until a run that is under way is looked at again.
const LATER: Duration = Duration::from_mins(10);

/// Imports a chunk's rows.
pub async fn chunk(context: Context, job: ImportChunk) -> Result<(), Failure> {
    let tx = context.finish().await?;
    if let Some(begun) = ImportRun::begin_chunk(&tx, job.run, job.place).await? {
        let outcome = import::apply(&tx, &begun, context.now()).await?;
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

/// A chunk will not be imported, so the run ends: what came before it stays.
pub async fn chunk_ended(context: Context, ended: Ended) -> Result<(), Failure> {
    let subject = ended.subject.unwrap_or_default();
    let run = subject.parse::<ImportRunId>().map_err(|error| Failure::abort(error.to_string()))?;
    let tx = context.finish().await?;
    end(&tx, run, ended.outcome, ended.error, &context).await?;
    push_sweep(&tx, run).await?;
    tx.commit().await?;
    Ok(())
}

async fn end(
    tx: &Tx,
    run: ImportRunId,
    outcome: JobState,
    error: Option<String>,
    context: &Context,
) -> domain::Result<()> {
    let outcome = outcome.as_str().to_lowercase();
    let because = error.map(|error| format!(": {error}")).unwrap_or_default();
    let done = ImportRun::get(tx, run).await?.done;
    let reason =
        format!("the job of the next rows was {outcome}{because}; {done} rows were done before it");
    ImportRun::fail(tx, run, &reason, context.now()).await
}

/// Clears away what an ended run no longer needs.
pub async fn sweep(context: Context, job: ImportSweep) -> Result<(), Failure> {
    loop {
        let tx = context.write().await?;
        let swept = ImportRun::sweep(&tx, job.run, context.now()).await?;
        tx.commit().await?;
        match swept {
            Sweep::More => {}
            Sweep::Open => return Err(Failure::snooze("the import is under way", LATER)),
            Sweep::Clear => break,
        }
    }
    context.finish().await?.commit().await?;
    Ok(())
}

/// Forgets imports that are older than the history: a part at a time, as an import may have thousands of errors.
pub(crate) async fn forget(round: Round) -> domain::Result<()> {
    loop {
        let tx = round.db.fleet().await?;
        let before = tx.now().await? - TimeDelta::days(round.history_days.into());
        let forgotten = ImportRun::forget(&tx, before).await?;
        tx.commit().await?;
        if forgotten == 0 {
            return Ok(());
        }
    }
}
