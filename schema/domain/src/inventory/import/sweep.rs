//! Clean-up of import runs: deletes the working data of ended runs, fails runs with an abandoned upload, and deletes
//! old runs. The working data are the stored chunks, the headers of the files, and the keys for deduplication.

use chrono::{DateTime, Utc};
use tokio_postgres::Row;

use super::ImportRun;
use crate::base::{
    db::{Fleet, Tx},
    entity::ImportRunId,
    error::Result,
};

/// Maximum number of deduplication keys that one sweep deletes.
const SWEEP_BATCH: i64 = 20_000;
/// Maximum number of runs deleted per statement; each run has up to 10,000 errors.
const DELETE_BATCH: i64 = 10;

/// Result of sweeping one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweep {
    /// All working data of the run is deleted, or the run does not exist.
    Done,
    /// Working data of the run remains; sweep again immediately.
    More,
    /// The run is in progress; sweep again later.
    InProgress,
}

impl ImportRun {
    /// Deletes a batch of the working data of an ended run: up to 50 chunks and 20,000 keys. First fails the run if its
    /// upload was abandoned, i.e. no chunk arrived for [`Self::ABANDONED_AFTER`].
    pub async fn sweep(tx: &Tx, id: ImportRunId, now: DateTime<Utc>) -> Result<Sweep> {
        let run: Option<Row> = tx
            .opt(
                "SELECT finished_at IS NOT NULL AS has_ended,
                        received_at IS NULL AND advanced_at < now() - $2::bigint * interval '1 ms' AS is_abandoned
                 FROM import_run WHERE id = $1 FOR UPDATE",
                &[&id, &Self::ABANDONED_AFTER.num_milliseconds()],
            )
            .await?;
        let Some(run) = run else { return Ok(Sweep::Done) };
        if run.try_get("is_abandoned")? && !run.try_get::<_, bool>("has_ended")? {
            Self::fail(
                tx,
                id,
                "the upload stopped before the whole file arrived, and nothing was imported: send the file again",
                now,
            )
            .await?;
        } else if !run.try_get::<_, bool>("has_ended")? {
            return Ok(Sweep::InProgress);
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
                // Deletes a range of keys rather than a set. Postgres has no statistics for new rows, and would join a
                // set in a nested loop.
                "DELETE FROM import_key WHERE run_id = $1 AND key <=
                     (SELECT max(key) FROM (SELECT key FROM import_key WHERE run_id = $1 ORDER BY key LIMIT $2) AS part)",
                &[&id, &SWEEP_BATCH],
            )
            .await?;
        if chunks + keys > 0 {
            return Ok(Sweep::More);
        }
        tx.exec("DELETE FROM import_table WHERE run_id = $1", &[&id]).await?;
        Ok(Sweep::Done)
    }

    /// Deletes up to ten runs of any organizations that ended before this time, with their errors. Returns the number
    /// of deleted runs.
    pub async fn delete_ended(tx: &Tx<Fleet>, before: DateTime<Utc>) -> Result<u64> {
        tx.exec(
            "DELETE FROM import_run WHERE (org_id, id) IN
                 (SELECT org_id, id FROM import_run WHERE finished_at < $1 ORDER BY finished_at LIMIT $2)",
            &[&before, &DELETE_BATCH],
        )
        .await
    }
}
