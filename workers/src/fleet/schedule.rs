//! Periodic task that pushes the jobs of due schedules. The handlers of these jobs are in other modules:
//! `compliance/run` starts a scheduled compliance run.

use jobs::fleet::schedule;

use crate::maintenance::TaskContext;

/// Pushes the jobs of due schedules. Postgres' clock decides, because the clocks of workers may differ.
pub(crate) async fn push_due(context: TaskContext) -> domain::Result<()> {
    let tx = context.db.fleet().await?;
    let now = tx.now().await?;
    schedule::push_due(&tx, now).await?;
    tx.commit().await
}
