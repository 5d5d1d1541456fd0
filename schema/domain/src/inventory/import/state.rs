//! The states of an import run. A run is opened, receives rows (`QUEUED`, `received_at` null), has received all rows
//! (`QUEUED`), imports chunk by chunk (`RUNNING`), and ends (`SUCCEEDED`, `FAILED` or `CANCELLED`).
//!
//! Long, because all transitions of a run are in one file, in this order.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use tokio_postgres::Row;

use super::{Chunk, ImportKind, ImportOrder, ImportRun, Opened, RowError, Table};
use crate::{
    access::audit::Entry,
    base::{
        db::Tx,
        entity::{self, Entity, ImportRunId},
        error::{Error, Result},
        event::Event,
        run_state::RunState,
    },
};

/// Maximum number of runs in progress per organization. Each run stores up to 512 MiB.
const MAX_OPEN_RUNS: i64 = 5;
/// Maximum number of stored errors per run. The count of failed rows includes the others.
const MAX_ERRORS: i32 = 10_000;
/// Maximum length of each stored text of an error, in characters. The texts quote the input.
const MAX_MESSAGE_CHARS: usize = 1_000;

const SELECT: &str = "SELECT id, state, kind, format, dry_run, empty_cells, actor_kind, actor_id, error, rows, done, created,
    updated, unchanged, failed, started_at, received_at, finished_at FROM import_run";

/// A chunk that the current transaction imports, with its run.
#[derive(Debug)]
pub struct ClaimedChunk {
    /// Run of the chunk, as it was before this chunk.
    pub run: ImportRun,
    /// Kind, columns and delimiter of the rows.
    pub table: Table,
    /// Rows to import.
    pub chunk: Chunk,
}

/// Result of importing a chunk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Number of rows that created an asset or dependency.
    pub created: i32,
    /// Number of rows that changed an asset or dependency.
    pub updated: i32,
    /// Number of rows that changed nothing.
    pub unchanged: i32,
    /// Errors of the rows that were not imported. A row can have several errors.
    pub faults: Vec<RowError>,
}

impl ImportRun {
    /// Time without a new chunk after which an upload counts as abandoned, because the process that received the upload
    /// has exited.
    pub const ABANDONED_AFTER: TimeDelta = TimeDelta::minutes(10);

    /// Opens a run, which is then ready to receive rows. Returns the earlier run if the caller has used the idempotency
    /// key before.
    ///
    /// # Errors
    /// `Invalid` for a malformed idempotency key. `Conflict` if the run with the idempotency key has other parameters
    /// or is still receiving rows, or if the organization has five runs in progress.
    pub async fn open(tx: &Tx, order: &ImportOrder, now: DateTime<Utc>) -> Result<Opened> {
        if let Some(key) = &order.idempotency_key
            && (key.is_empty() || key.chars().count() > 255 || key.contains('\0'))
        {
            return Err(Error::invalid("idempotencyKey", "must have 1 to 255 characters"));
        }
        // Serialises requests per organization. Otherwise, concurrent requests would not count each other's runs.
        let lock = "SELECT pg_advisory_xact_lock(hashtextextended('import_run ' || $1::uuid, 0))";
        tx.exec(lock, &[&tx.org()]).await?;
        let (actor_kind, actor_id) = tx.origin().actor.columns();
        // The stored key includes the actor, so that callers can use the same key independently of each other.
        let idempotency_key = order
            .idempotency_key
            .as_ref()
            .map(|key| format!("{actor_kind} {} {key}", actor_id.unwrap_or_default()));
        if let Some(key) = &idempotency_key
            && let Some(run) =
                tx.opt::<Self>(&format!("{SELECT} WHERE idempotency_key = $1"), &[key]).await?
        {
            run.check_same_order(order)?;
            return Ok(Opened::Existing(run));
        }
        let open: Row = tx
            .one("SELECT count(*) AS open FROM import_run WHERE finished_at IS NULL", &[])
            .await?;
        if open.try_get::<_, i64>("open")? >= MAX_OPEN_RUNS {
            return Err(Error::Conflict(format!(
                "{MAX_OPEN_RUNS} imports of the organization are in progress: wait until one ends, or cancel one"
            )));
        }
        let id = ImportRunId::new();
        tx.exec(
            "INSERT INTO import_run (org_id, id, kind, format, state, dry_run, empty_cells, actor_kind, actor_id,
                                     idempotency_key, started_at, advanced_at)
             VALUES ($1, $2, $3, $4, 'QUEUED', $5, $6, $7, $8, $9, $10, now())",
            &[
                &tx.org(),
                &id,
                &order.kind.as_str(),
                &order.format.as_str(),
                &order.dry_run,
                &order.empty_cells.as_str(),
                &actor_kind,
                &actor_id,
                &idempotency_key,
                &now,
            ],
        )
        .await?;
        let details =
            json!({ "kind": order.kind, "format": order.format, "dryRun": order.dry_run });
        Entry::created("import_run.started", id, &details).record(tx).await?;
        Self::get(tx, id).await.map(Opened::New)
    }

    /// Checks that this run can be returned for an order with the same idempotency key.
    ///
    /// # Errors
    /// `Conflict` if the order has other parameters, or if this run is still receiving rows.
    fn check_same_order(&self, order: &ImportOrder) -> Result<()> {
        let ordered = (order.kind, order.format, order.dry_run, order.empty_cells);
        if (self.kind, self.format, self.dry_run, self.empty_cells) != ordered {
            return Err(Error::Conflict(
                "the idempotency key belongs to another import, with another kind, format, dryRun or emptyCells: \
                 use a new key for this import"
                    .into(),
            ));
        }
        if self.received_at.is_none() {
            return Err(Error::Conflict(
                "an upload with this idempotency key is still in progress: wait until that upload has ended, then send the file again"
                    .into(),
            ));
        }
        Ok(())
    }

    /// Stores a chunk until it is imported, and records the errors of its unreadable rows.
    ///
    /// # Errors
    /// `Conflict` if the run has ended, or if all rows have been received.
    pub async fn add_chunk(tx: &Tx, id: ImportRunId, table: &Table, chunk: &Chunk) -> Result<()> {
        let index: Option<Row> = tx
            .opt(
                "UPDATE import_run SET chunks = chunks + 1, rows = rows + $2, advanced_at = now()
                 WHERE id = $1 AND state = 'QUEUED' AND received_at IS NULL
                 RETURNING chunks - 1 AS place,
                     EXISTS (SELECT FROM import_table WHERE run_id = $1 AND kind = $3) AS is_table_stored",
                &[&id, &chunk.rows, &table.kind.as_str()],
            )
            .await?;
        let Some(index) = index else {
            return Err(Error::Conflict("the import has already ended".into()));
        };
        if !index.try_get::<_, bool>("is_table_stored")? {
            let delimiter = char::from(table.delimiter).to_string();
            tx.exec(
                "INSERT INTO import_table (org_id, run_id, kind, columns, delimiter) VALUES ($1, $2, $3, $4, $5)",
                &[&tx.org(), &id, &table.kind.as_str(), &table.columns, &delimiter],
            )
            .await?;
        }
        tx.exec(
            "INSERT INTO import_chunk (org_id, run_id, place, kind, rows, numbers, content)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            &[
                &tx.org(),
                &id,
                &index.try_get::<_, i32>("place")?,
                &table.kind.as_str(),
                &chunk.rows,
                &chunk.numbers,
                &chunk.content,
            ],
        )
        .await?;
        Self::record_errors(tx, id, table.kind, &chunk.faults).await?;
        tx.emit(Event::changed(tx.org(), id));
        Ok(())
    }

    /// Marks all rows of the run as received. A run without rows succeeds immediately.
    ///
    /// # Errors
    /// `Conflict` if the run has ended, or if all rows have already been marked as received.
    pub async fn mark_received(tx: &Tx, id: ImportRunId, now: DateTime<Utc>) -> Result<Self> {
        let changed = tx
            .exec(
                "UPDATE import_run SET received_at = $2, advanced_at = now(),
                     state = CASE WHEN chunks = 0 THEN 'SUCCEEDED' ELSE state END,
                     finished_at = CASE WHEN chunks = 0 THEN $2::timestamptz END
                 WHERE id = $1 AND state = 'QUEUED' AND received_at IS NULL",
                &[&id, &now],
            )
            .await?;
        if changed == 0 {
            return Err(Error::Conflict("the import has already ended".into()));
        }
        tx.emit(Event::changed(tx.org(), id));
        let run = Self::get(tx, id).await?;
        if run.state.has_ended() {
            run.record_success(tx, RunState::Queued).await?;
        }
        Ok(run)
    }

    /// Claims a chunk for the import in this transaction: deletes and returns the stored chunk. Returns `None` if the
    /// run has ended, or if the chunk has already been imported. Locks the run's row until the transaction ends. A
    /// cancellation waits for this lock, and fails if the wait exceeds the lock timeout of its session.
    pub async fn begin_chunk(tx: &Tx, id: ImportRunId, index: i32) -> Result<Option<ClaimedChunk>> {
        let run: Option<Self> = tx
            .opt(
                &format!(
                    "{SELECT} WHERE id = $1 AND state IN ('QUEUED', 'RUNNING') AND chunks_done = $2 FOR UPDATE"
                ),
                &[&id, &index],
            )
            .await?;
        let Some(run) = run else { return Ok(None) };
        // Prevents sequential scans: a plan cached while a table was empty would scan the whole table after it has
        // grown.
        tx.exec("SELECT set_config('enable_seqscan', 'off', true)", &[]).await?;
        let chunk: Row = tx
            .one(
                "WITH chunk AS (DELETE FROM import_chunk WHERE run_id = $1 AND place = $2
                                RETURNING org_id, run_id, kind, rows, numbers, content)
                 SELECT chunk.kind, columns, delimiter, rows, numbers, content
                 FROM chunk JOIN import_table USING (org_id, run_id, kind)",
                &[&id, &index],
            )
            .await?;
        let table = Table {
            kind: ImportKind::from_column(chunk.try_get("kind")?)?,
            columns: chunk.try_get("columns")?,
            delimiter: chunk
                .try_get::<_, &str>("delimiter")?
                .bytes()
                .next()
                .ok_or(Error::Corrupt { table: "import_table", column: "delimiter" })?,
        };
        let chunk = Chunk {
            rows: chunk.try_get("rows")?,
            numbers: chunk.try_get("numbers")?,
            content: chunk.try_get("content")?,
            faults: Vec::new(),
        };
        Ok(Some(ClaimedChunk { run, table, chunk }))
    }

    /// Adds the outcome of a chunk to the run's counts, and returns the index of the next chunk. After the last chunk,
    /// ends the run as succeeded and returns `None`.
    pub async fn close_chunk(
        tx: &Tx,
        claimed: &ClaimedChunk,
        outcome: &Outcome,
        now: DateTime<Utc>,
    ) -> Result<Option<i32>> {
        let id = claimed.run.id;
        Self::record_errors(tx, id, claimed.table.kind, &outcome.faults).await?;
        let Outcome { created, updated, unchanged, .. } = outcome;
        let failed = claimed.chunk.rows - created - updated - unchanged;
        let row: Row = tx
            .one(
                "UPDATE import_run SET
                     chunks_done = chunks_done + 1, done = done + $2, created = created + $3, updated = updated + $4,
                     unchanged = unchanged + $5, failed = failed + $6, advanced_at = now(),
                     state = CASE WHEN chunks_done + 1 = chunks THEN 'SUCCEEDED' ELSE 'RUNNING' END,
                     finished_at = CASE WHEN chunks_done + 1 = chunks THEN $7::timestamptz END
                 WHERE id = $1 RETURNING chunks_done, state = 'SUCCEEDED' AS is_last",
                &[&id, &claimed.chunk.rows, created, updated, unchanged, &failed, &now],
            )
            .await?;
        tx.emit(Event::changed(tx.org(), id));
        if !row.try_get::<_, bool>("is_last")? {
            return Ok(Some(row.try_get("chunks_done")?));
        }
        // `begin_chunk` locked the run's row, so the run has not changed since the update above.
        Self::get(tx, id).await?.record_success(tx, claimed.run.state).await?;
        Ok(None)
    }

    async fn record_success(&self, tx: &Tx, before: RunState) -> Result<()> {
        let before = json!({ "state": before });
        Entry::changed("import_run.finished", self.id, before, self.result()).record(tx).await
    }

    /// Ends a run as failed. Assets and dependencies that it has already imported stay. Does nothing if the run has
    /// ended.
    pub async fn fail(tx: &Tx, id: ImportRunId, reason: &str, now: DateTime<Utc>) -> Result<()> {
        let action = "import_run.failed";
        Self::end(tx, id, RunState::Failed, action, Some(reason), now).await.map(drop)
    }

    /// Ends a run as failed if not all of its rows have been received, and returns `None`. If all rows have been
    /// received, leaves the run unchanged and returns it: the upload succeeded, and only the response was lost.
    pub async fn fail_upload(
        tx: &Tx,
        id: ImportRunId,
        reason: &str,
        now: DateTime<Utc>,
    ) -> Result<Option<Self>> {
        let sql = format!("{SELECT} WHERE id = $1 FOR UPDATE");
        let run: Self = tx.one(&sql, &[&id]).await?;
        if run.received_at.is_some() {
            return Ok(Some(run));
        }
        Self::fail(tx, id, reason, now).await.map(|()| None)
    }

    /// Ends a run as cancelled. Assets and dependencies that it has already imported stay. If a chunk is being
    /// imported, waits until the chunk's transaction has ended.
    ///
    /// # Errors
    /// `NotFound` if the run does not exist. `Conflict` if the run has ended.
    pub async fn cancel(tx: &Tx, id: ImportRunId, now: DateTime<Utc>) -> Result<Self> {
        let action = "import_run.cancelled";
        if !Self::end(tx, id, RunState::Cancelled, action, None, now).await? {
            let state = Self::get(tx, id).await?.state;
            return Err(Error::Conflict(format!(
                "the import has ended already: it is {}",
                state.as_str()
            )));
        }
        Self::get(tx, id).await
    }

    async fn end(
        tx: &Tx,
        id: ImportRunId,
        state: RunState,
        action: &'static str,
        reason: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<bool> {
        let before: Option<Row> = tx
            .opt(
                "WITH before AS (SELECT org_id, id, state FROM import_run
                                 WHERE id = $1 AND state IN ('QUEUED', 'RUNNING') FOR UPDATE)
                 UPDATE import_run AS run SET state = $2, error = $3, finished_at = $4,
                     -- The key is released if not all rows were received, so that the file can be sent again.
                     idempotency_key = CASE WHEN run.received_at IS NOT NULL THEN run.idempotency_key END
                 FROM before WHERE run.org_id = before.org_id AND run.id = before.id
                 RETURNING before.state",
                &[&id, &state.as_str(), &reason, &now],
            )
            .await?;
        let Some(before) = before else { return Ok(false) };
        let before = json!({ "state": before.try_get::<_, &str>("state")? });
        let after = json!({ "state": state, "error": reason });
        Entry::changed(action, id, before, after).record(tx).await?;
        tx.emit(Event::changed(tx.org(), id));
        Ok(true)
    }

    /// Returns the run with this id, or `None`.
    pub async fn find(tx: &Tx, id: ImportRunId) -> Result<Option<Self>> {
        tx.opt(&format!("{SELECT} WHERE id = $1"), &[&id]).await
    }

    /// Returns the run with this id.
    ///
    /// # Errors
    /// `NotFound` if the run does not exist.
    pub async fn get(tx: &Tx, id: ImportRunId) -> Result<Self> {
        Self::find(tx, id).await?.ok_or_else(|| Error::not_found(entity::ImportRun::NAME, id))
    }

    async fn record_errors(
        tx: &Tx,
        id: ImportRunId,
        kind: ImportKind,
        faults: &[RowError],
    ) -> Result<()> {
        if faults.is_empty() {
            return Ok(());
        }
        let counts: Row = tx
            .one(
                "WITH before AS (SELECT org_id, id, errors_kept FROM import_run WHERE id = $1 FOR UPDATE)
                 UPDATE import_run AS run SET errors_kept = LEAST(before.errors_kept + $2, $3)
                 FROM before WHERE run.org_id = before.org_id AND run.id = before.id
                 RETURNING before.errors_kept AS before, run.errors_kept AS after",
                &[&id, &i32::try_from(faults.len()).unwrap_or(MAX_ERRORS), &MAX_ERRORS],
            )
            .await?;
        let remaining = counts.try_get::<_, i32>("after")? - counts.try_get::<_, i32>("before")?;
        let faults = &faults[..usize::try_from(remaining).unwrap_or_default()];
        let ids: Vec<_> = faults.iter().map(|_| uuid::Uuid::now_v7()).collect();
        let rows: Vec<_> = faults.iter().map(|fault| fault.row).collect();
        let columns: Vec<_> =
            faults.iter().map(|fault| fault.column.as_deref().map(truncated)).collect();
        let messages: Vec<_> = faults.iter().map(|fault| truncated(&fault.message)).collect();
        let suggestions: Vec<_> =
            faults.iter().map(|fault| fault.suggestion.as_deref().map(truncated)).collect();
        tx.exec(
            "INSERT INTO import_error (org_id, run_id, kind, id, \"row\", \"column\", message, suggestion)
             SELECT $1, $2, $3, * FROM UNNEST($4::uuid[], $5::int[], $6::text[], $7::text[], $8::text[])",
            &[&tx.org(), &id, &kind.as_str(), &ids, &rows, &columns, &messages, &suggestions],
        )
        .await?;
        Ok(())
    }

    fn result(&self) -> Value {
        json!({
            "state": self.state, "rows": self.rows, "created": self.created, "updated": self.updated,
            "unchanged": self.unchanged, "failed": self.failed,
        })
    }
}

/// Returns the first [`MAX_MESSAGE_CHARS`] characters of a text.
fn truncated(text: &str) -> &str {
    text.char_indices().nth(MAX_MESSAGE_CHARS).map_or(text, |(end, _)| &text[..end])
}
