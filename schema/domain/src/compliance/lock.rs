//! The advisory lock of an organization's postures.

use chrono::{DateTime, Utc};
use tokio_postgres::Row;

use crate::base::{db::Tx, error::Result};

/// Mode in which an organization's postures are locked until the transaction ends. The lock is acquired before facts,
/// rules and waivers are read, so that an older evaluation never overwrites a newer one.
///
/// Two transactions with shared locks can evaluate the same asset: a shard of a run of all assets, and a shard of a run
/// with a scope. If only one of the two read a change of facts or rules, the re-evaluation of that change corrects the
/// posture. The re-evaluation runs after both, because it acquires the lock exclusively.
///
/// A holder evaluates at most `Ruleset::batch_size` assets, a few seconds of computing. On a busy server it takes
/// longer, because evaluations have a lower priority than requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PostureLock {
    /// Held while a range of assets is evaluated: by a shard of a run, or by a refresh.
    Shared,
    /// Held by a re-evaluation of changes, a verification of stored postures, and the deletion of an asset.
    Exclusive,
}

impl PostureLock {
    /// Acquires the lock, waiting up to 20 seconds. Returns the time as of which to evaluate: `now`, or the clock of
    /// Postgres if that is later, as after a wait, or if the caller's clock is behind.
    pub(crate) async fn acquire(self, tx: &Tx, now: DateTime<Utc>) -> Result<DateTime<Utc>> {
        // The holder may be evaluating assets for some seconds, which takes longer than the default timeouts allow.
        let set_timeouts = "SELECT set_config('lock_timeout', '20s', true), set_config('statement_timeout', '30s', true)";
        tx.exec(set_timeouts, &[]).await?;
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
