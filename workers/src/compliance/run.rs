//! Handlers of compliance runs. Each shard (a range of the run's assets) is evaluated and counted in one transaction,
//! which also completes its job.

use domain::{
    compliance::run::{Run, RunTrigger},
    entity::RunId,
};
use jobs::{
    Failure,
    compliance::{
        posture::push_flip,
        run::{RunShard, push_shards},
    },
    fleet::schedule::ScheduledRun,
    job::Ended,
};

use crate::context::Context;

/// Evaluates the assets of a shard. If the rules have changed since the run began, the run starts again with new
/// shards.
pub async fn shard(context: Context, job: RunShard) -> Result<(), Failure> {
    let tx = context.write().await?;
    let is_open = Run::begin_shard(&tx, job.run, job.round).await?;
    tx.commit().await?;
    let tx = context.finish().await?;
    if is_open {
        let restarted =
            Run::evaluate_shard(&tx, job.run, job.round, job.range, context.now()).await?;
        if let Some(restarted) = restarted {
            push_shards(&tx, restarted).await?;
        }
        push_flip(&tx).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Starts the compliance run of an occurrence of a schedule. The run is started once, even if the job runs several
/// times.
pub async fn scheduled(context: Context, job: ScheduledRun) -> Result<(), Failure> {
    let tx = context.finish().await?;
    let trigger = RunTrigger::Schedule;
    let started = Run::start(&tx, trigger, None, Some(&job.key), context.now()).await?;
    push_shards(&tx, started).await?;
    tx.commit().await?;
    Ok(())
}

/// Marks the run as failed after one of its shards was buried (dead-lettered), discarded or cancelled.
pub async fn shard_ended(context: Context, ended: Ended) -> Result<(), Failure> {
    let subject = ended.subject.unwrap_or_default();
    let run = subject.parse::<RunId>().map_err(|error| Failure::abort(error.to_string()))?;
    let outcome = ended.outcome.as_str().to_lowercase();
    let reason = match ended.error {
        Some(error) => format!("a shard was {outcome}: {error}"),
        None => format!("a shard was {outcome}"),
    };
    let tx = context.finish().await?;
    Run::fail(&tx, run, &reason, context.now()).await?;
    push_flip(&tx).await?;
    tx.commit().await?;
    Ok(())
}
