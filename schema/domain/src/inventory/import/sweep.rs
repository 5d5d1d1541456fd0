//! What is cleared away after a run, and the end of one that nobody goes on with.

use chrono::{DateTime, Utc};
use tokio_postgres::Row;

use super::ImportRun;
use crate::base::{
    db::{Fleet, Tx},
    entity::ImportRunId,
    error::Result,
};

/// Rows that a sweep takes away at a time.
const SWEPT: i64 = 20_000;
/// Runs that are forgotten at a time; each may have 10,000 errors.
const FORGOTTEN: i64 = 10;

/// What a look at what a run leaves behind found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweep {
    /// All is clear.
    Clear,
    /// There is more to take away.
    More,
    /// It is under way: look again later.
    Open,
}

impl ImportRun {
    /// Clears away what an ended run no longer needs, a part at a time, and ends one whose upload was abandoned.
    pub async fn sweep(tx: &Tx, id: ImportRunId, now: DateTime<Utc>) -> Result<Sweep> {
        let run: Option<Row> = tx
            .opt(
                "SELECT finished_at IS NOT NULL AS has_ended,
                        received_at IS NULL AND advanced_at < now() - $2::bigint * interval '1 ms' AS is_abandoned
                 FROM import_run WHERE id = $1 FOR UPDATE",
                &[&id, &Self::ABANDONED.num_milliseconds()],
            )
            .await?;
        let Some(run) = run else { return Ok(Sweep::Clear) };
        if run.try_get("is_abandoned")? && !run.try_get::<_, bool>("has_ended")? {
            Self::fail(tx, id, "the upload broke off: nothing of it was imported", now).await?;
        } else if !run.try_get::<_, bool>("has_ended")? {
            return Ok(Sweep::Open);
        }
        let chunks = tx
            .exec(
                "DELETE FROM import_chunk WHERE run_id = $1 AND place IN
                     (SELECT place FROM import_chunk WHERE run_id = $1 ORDER BY place LIMIT 50)",
                &[&id],
            )
            .await?;
        let keys = tx
            .exec(
                // Up to a key, not a set of them: fresh rows have no statistics, and a join of them would be a nested loop.
                "DELETE FROM import_key WHERE run_id = $1 AND key <=
                     (SELECT max(key) FROM (SELECT key FROM import_key WHERE run_id = $1 ORDER BY key LIMIT $2) AS part)",
                &[&id, &SWEPT],
            )
            .await?;
        if chunks + keys > 0 {
            return Ok(Sweep::More);
        }
        tx.exec("DELETE FROM import_table WHERE run_id = $1", &[&id]).await?;
        Ok(Sweep::Clear)
    }

    /// Forgets some of the runs of all organizations that ended before, with their errors: how many.
    pub async fn forget(tx: &Tx<Fleet>, before: DateTime<Utc>) -> Result<u64> {
        tx.exec(
            "DELETE FROM import_run WHERE (org_id, id) IN
                 (SELECT org_id, id FROM import_run WHERE finished_at < $1 ORDER BY finished_at LIMIT $2)",
            &[&before, &FORGOTTEN],
        )
        .await
    }
}
