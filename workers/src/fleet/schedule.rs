//! Schedules: what is due is pushed. The handlers are those of the wings: a scheduled compliance run is started in
//! `compliance/run`.

use jobs::fleet::schedule;

use crate::maintenance::Round;

/// Pushes the jobs of schedules that are due: by Postgres' clock, as those of workers need not agree.
pub(crate) async fn push_due(round: Round) -> domain::Result<()> {
    let tx = round.db.fleet().await?;
    let now = tx.now().await?;
    schedule::push_due(&tx, now).await?;
    tx.commit().await
}
