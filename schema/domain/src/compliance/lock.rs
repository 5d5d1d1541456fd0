//! The lock of an organization's postures.

use chrono::{DateTime, Utc};
use tokio_postgres::Row;

use crate::base::{db::Tx, error::Result};

/// How an organization's postures are locked, until the transaction ends: taken before facts, rules and waivers are read, so
/// that an older look is never written over a newer one.
///
/// Those that share it may meet at an asset where a run and one of a smaller scope do. Both judge it by the same rules, as whoever
/// changes rules takes it alone; and a change of facts that only one of them saw is followed after both, alone too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lock {
    /// Of a range: a run's shard, a refresh.
    Shared,
    /// Of whatever changed, of what is compared with what is kept, of an asset that is being deleted, of rules that change.
    Exclusive,
}

impl Lock {
    /// Waits for it; the time as of which to judge then: `now`, or Postgres' time if that is later, as it is after a wait, or
    /// where the caller's clock is behind.
    pub(crate) async fn take(self, tx: &Tx, now: DateTime<Utc>) -> Result<DateTime<Utc>> {
        // Whoever waits here waits for a look at some thousand assets.
        let wait = "SELECT set_config('lock_timeout', '20s', true), set_config('statement_timeout', '30s', true)";
        tx.exec(wait, &[]).await?;
        let sql = match self {
            Self::Shared => {
                "SELECT pg_advisory_xact_lock_shared(hashtextextended('posture ' || $1, 0))::text, clock_timestamp() AS at"
            }
            Self::Exclusive => {
                "SELECT pg_advisory_xact_lock(hashtextextended('posture ' || $1, 0))::text, clock_timestamp() AS at"
            }
        };
        let row: Row = tx.one(sql, &[&tx.org().uuid().to_string()]).await?;
        Ok(now.max(row.try_get("at")?))
    }
}
