//! Handlers of the jobs that re-evaluate postures between compliance runs. A posture is all verdicts and the score of
//! one asset.

use std::time::Duration;

use domain::compliance::{posture, range::AssetRange};
use jobs::{
    Failure,
    compliance::posture::{
        Reevaluate, ReevaluateFlips, Refresh, Verify, push_flip, push_missing_reevaluations,
        push_refresh, push_verify,
    },
};

use crate::{context::Context, maintenance::TaskContext};

/// Interval between two searches for recorded changes without a re-evaluation job.
pub(crate) const MISSING_INTERVAL: Duration = Duration::from_secs(3);

/// Re-evaluates the assets whose rule inputs changed. Pushes the jobs for the ranges to refresh, and for changes beyond
/// one batch.
pub async fn reevaluate(context: Context, _: Reevaluate) -> Result<(), Failure> {
    let tx = context.finish().await?;
    let reevaluated = posture::reevaluate(&tx, context.now()).await?;
    push_refresh(&tx, reevaluated.refresh_ranges).await?;
    if reevaluated.has_more {
        jobs::compliance::posture::push_reevaluation(&tx).await?;
    }
    push_flip(&tx).await?;
    tx.commit().await?;
    Ok(())
}

/// Re-evaluates assets with a verdict that changed because time passed. Uses the later time of the worker's and
/// Postgres' clocks, because Postgres' clock decided that the job was due.
pub async fn reevaluate_flips(context: Context, _: ReevaluateFlips) -> Result<(), Failure> {
    let tx = context.finish().await?;
    let now = context.now().max(tx.now().await?);
    posture::reevaluate_flips(&tx, now).await?;
    push_flip(&tx).await?;
    tx.commit().await?;
    Ok(())
}

/// Re-evaluates a range of assets after rules changed.
pub async fn refresh(context: Context, job: Refresh) -> Result<(), Failure> {
    let tx = context.finish().await?;
    posture::refresh(&tx, job.range, context.now()).await?;
    push_flip(&tx).await?;
    tx.commit().await?;
    Ok(())
}

/// Compares all stored postures of the organization with a full evaluation, range by range. Logs the differences and
/// repairs them.
pub async fn verify(context: Context, _: Verify) -> Result<(), Failure> {
    let tx = context.write().await?;
    let ranges = AssetRange::all(&tx).await?;
    tx.commit().await?;
    for range in ranges {
        let tx = context.write().await?;
        let differing = posture::verify(&tx, range, context.now()).await?.mismatches;
        posture::repair(&tx, &differing, context.now()).await?;
        push_flip(&tx).await?;
        tx.commit().await?;
        metrics::counter!("sentryops_posture_mismatches_total").increment(differing.len() as u64);
        if let Some(first) = differing.first() {
            let count = differing.len();
            tracing::error!(
                asset.id = %first.asset, count,
                "the stored postures of {count} assets differed from a full evaluation, and were repaired"
            );
        }
    }
    context.finish().await?.commit().await?;
    Ok(())
}

/// Pushes re-evaluation jobs for recorded changes that have none.
pub(crate) async fn push_missing(context: TaskContext) -> domain::Result<()> {
    let tx = context.db.fleet().await?;
    push_missing_reevaluations(&tx).await?;
    tx.commit().await
}

/// Pushes the next verification of postures for each organization in which none waits.
pub(crate) async fn push_next_verification(context: TaskContext) -> domain::Result<()> {
    let tx = context.db.fleet().await?;
    let now = tx.now().await?;
    push_verify(&tx, now).await?;
    tx.commit().await
}
