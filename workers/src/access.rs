//! Periodic deletion of what sign-ins leave behind: ended sessions with their refresh tokens, quiet failure counters,
//! and invitations that nobody accepted.

use chrono::TimeDelta;
use domain::{
    Origin,
    access::{login::LockoutCounter, session::Session, user::User},
};

use crate::maintenance::TaskContext;

/// Days after which ended sessions, quiet failure counters and open invitations are deleted. Not shorter: an address
/// counts as known for 30 days after a sign-in, and failures in a row count over any period.
const RETENTION_DAYS: i64 = 30;
/// Number of rows that one transaction deletes.
const BATCH: i64 = 1_000;

/// Deletes what is older than [`RETENTION_DAYS`], in batches.
pub(crate) async fn delete_old(context: TaskContext) -> domain::Result<()> {
    loop {
        let tx = context.db.auth(Origin::system()).await?;
        let before = tx.now().await? - TimeDelta::days(RETENTION_DAYS);
        let deleted = Session::delete_ended(&tx, before, BATCH).await?
            + LockoutCounter::delete_quiet(&tx, before, BATCH).await?
            + User::expire_invitations(&tx, before, BATCH).await?;
        tx.commit().await?;
        if deleted == 0 {
            return Ok(());
        }
    }
}
