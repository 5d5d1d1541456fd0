//! Postures: between compliance runs, what changes is followed.

use std::time::Duration;

use domain::compliance::{posture, range::AssetRange};
use jobs::{
    Failure,
    compliance::posture::{
        Flip, Reevaluate, Refresh, Verify, push_flip, push_forgotten, push_refresh, push_verify,
    },
};

use crate::{context::Context, maintenance::Round};

/// How often changes are looked for that nobody asked to follow.
pub(crate) const FORGOTTEN_EVERY: Duration = Duration::from_secs(3);

/// Judges what changed.
pub async fn reevaluate(context: Context, _: Reevaluate) -> Result<(), Failure> {
    let tx = context.finish().await?;
    let reevaluated = posture::reevaluate(&tx, context.now()).await?;
    push_refresh(&tx, reevaluated.everybody).await?;
    if reevaluated.is_more {
        jobs::compliance::posture::push_reevaluation(&tx).await?;
    }
    push_flip(&tx).await?;
    tx.commit().await?;
    Ok(())
}

/// Judges what time alone has changed: by whichever clock is ahead, the worker's or Postgres', which decided that it is time.
pub async fn flip(context: Context, _: Flip) -> Result<(), Failure> {
    let tx = context.finish().await?;
    let now = context.now().max(tx.now().await?);
    posture::reevaluate_flips(&tx, now).await?;
    push_flip(&tx).await?;
    tx.commit().await?;
    Ok(())
}

/// Judges a range by rules that have changed.
pub async fn refresh(context: Context, job: Refresh) -> Result<(), Failure> {
    let tx = context.finish().await?;
    posture::refresh(&tx, job.range, context.now()).await?;
    push_flip(&tx).await?;
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
        push_flip(&tx).await?;
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

/// Asks for following where nobody has.
pub(crate) async fn reevaluate_forgotten(round: Round) -> domain::Result<()> {
    let tx = round.db.fleet().await?;
    push_forgotten(&tx).await?;
    tx.commit().await
}

/// Asks for the next comparison where none is asked for.
pub(crate) async fn ask_to_verify(round: Round) -> domain::Result<()> {
    let tx = round.db.fleet().await?;
    let now = tx.now().await?;
    push_verify(&tx, now).await?;
    tx.commit().await
}
