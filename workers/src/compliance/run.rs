//! Compliance runs: each shard is judged and counted in one transaction, which also ends its job. Between runs, what changes is
//! followed.

use domain::{
    compliance::{
        posture,
        range::AssetRange,
        run::{Run, RunTrigger},
    },
    entity::RunId,
};
use jobs::{
    Failure,
    compliance::run::{
        Follow, Refresh, ScanShard, Turn, Verify, push_refresh, push_shards, push_turn,
    },
    fleet::schedule::ScheduledRun,
    job::Ended,
};

use crate::context::Context;

/// Judges a shard's assets.
pub async fn shard(context: Context, job: ScanShard) -> Result<(), Failure> {
    let tx = context.write().await?;
    let is_open = Run::begin_shard(&tx, job.run, job.round).await?;
    tx.commit().await?;
    let tx = context.finish().await?;
    if is_open {
        let anew = Run::judge_shard(&tx, job.run, job.round, job.range, context.now()).await?;
        if let Some(anew) = anew {
            push_shards(&tx, anew).await?;
        }
        push_turn(&tx).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Starts the run of a schedule's tick: once, however often the tick is told.
pub async fn scheduled(context: Context, job: ScheduledRun) -> Result<(), Failure> {
    let tx = context.finish().await?;
    let trigger = RunTrigger::Schedule;
    let started = Run::start(&tx, trigger, None, Some(&job.key), context.now()).await?;
    push_shards(&tx, started).await?;
    tx.commit().await?;
    Ok(())
}

/// Judges what changed.
pub async fn follow(context: Context, _: Follow) -> Result<(), Failure> {
    let tx = context.finish().await?;
    let followed = posture::follow(&tx, context.now()).await?;
    push_refresh(&tx, followed.everybody).await?;
    if followed.is_more {
        jobs::compliance::run::follow(&tx).await?;
    }
    push_turn(&tx).await?;
    tx.commit().await?;
    Ok(())
}

/// Judges what time alone has changed: by whichever clock is ahead, the worker's or Postgres', which decided that it is time.
pub async fn turn(context: Context, _: Turn) -> Result<(), Failure> {
    let tx = context.finish().await?;
    let now = context.now().max(tx.now().await?);
    posture::turn(&tx, now).await?;
    push_turn(&tx).await?;
    tx.commit().await?;
    Ok(())
}

/// Judges a range by rules that have changed.
pub async fn refresh(context: Context, job: Refresh) -> Result<(), Failure> {
    let tx = context.finish().await?;
    posture::refresh(&tx, job.range, context.now()).await?;
    push_turn(&tx).await?;
    tx.commit().await?;
    Ok(())
}

/// Compares all postures with what a look at everything finds, part by part; what differs is said, and judged anew.
pub async fn verify(context: Context, _: Verify) -> Result<(), Failure> {
    let tx = context.write().await?;
    let ranges = AssetRange::all(&tx).await?;
    tx.commit().await?;
    for range in ranges {
        let tx = context.write().await?;
        let differing = posture::verify(&tx, range, context.now()).await?.mismatches;
        posture::repair(&tx, &differing, context.now()).await?;
        push_turn(&tx).await?;
        tx.commit().await?;
        metrics::counter!("sentryops_posture_mismatches_total").increment(differing.len() as u64);
        if let Some(first) = differing.first() {
            let count = differing.len();
            tracing::error!(
                asset.id = %first.asset, count,
                "the postures of {count} assets were not what a look at everything finds"
            );
        }
    }
    context.finish().await?.commit().await?;
    Ok(())
}

/// A shard will not be done, so neither will its run.
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
    push_turn(&tx).await?;
    tx.commit().await?;
    Ok(())
}
