//! The states of a run: opened, rows come, received, chunk after chunk done, ended.
//!
//! Long, because it follows a run from its opening to each of its ends, in that order.

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

/// Imports of one organization that may be under way at a time: each may hold 512 MiB.
const MAX_OPEN_RUNS: i64 = 5;
/// Errors of one run that are kept; all are counted.
const MAX_ERRORS: i32 = 10_000;
/// Characters of what is kept of an error: it quotes what was sent.
const MAX_MESSAGE_CHARS: usize = 1_000;

const SELECT: &str = "SELECT id, state, kind, format, dry_run, empty_cells, actor_kind, actor_id, error, rows, done, created,
    updated, unchanged, failed, started_at, received_at, finished_at FROM import_run";

/// A chunk to be imported now.
#[derive(Debug)]
pub struct Begun {
    /// Its run.
    pub run: ImportRun,
    /// What its rows' cells are.
    pub table: Table,
    /// The rows.
    pub chunk: Chunk,
}

/// What a chunk's rows came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Rows that made something new.
    pub created: i32,
    /// Rows that changed something.
    pub updated: i32,
    /// Rows that said what was known.
    pub unchanged: i32,
    /// What is wrong with the others.
    pub faults: Vec<RowError>,
}

impl ImportRun {
    /// An upload that brought no chunk for so long will not go on: whoever received it is gone.
    pub const ABANDONED: TimeDelta = TimeDelta::minutes(10);

    /// Opens a run: its rows may come.
    ///
    /// # Errors
    /// `Conflict` while five are under way, and where the key is that of one ordered otherwise, or whose rows still come.
    pub async fn open(tx: &Tx, order: &ImportOrder, now: DateTime<Utc>) -> Result<Opened> {
        if let Some(key) = &order.idempotency_key
            && (key.is_empty() || key.chars().count() > 255 || key.contains('\0'))
        {
            return Err(Error::invalid("idempotencyKey", "must have 1 to 255 characters"));
        }
        // One after the other: of those that come at once, each would see too few under way.
        let lock = "SELECT pg_advisory_xact_lock(hashtextextended('import_run ' || $1::uuid, 0))";
        tx.exec(lock, &[&tx.org()]).await?;
        let (actor_kind, actor_id) = tx.origin().actor.columns();
        // Everybody has keys of their own: nobody can use up another's.
        let idempotency_key = order
            .idempotency_key
            .as_ref()
            .map(|key| format!("{actor_kind} {} {key}", actor_id.unwrap_or_default()));
        if let Some(key) = &idempotency_key
            && let Some(run) =
                tx.opt::<Self>(&format!("{SELECT} WHERE idempotency_key = $1"), &[key]).await?
        {
            run.check_is_of(order)?;
            return Ok(Opened::Existing(run));
        }
        let open: Row = tx
            .one("SELECT count(*) AS open FROM import_run WHERE finished_at IS NULL", &[])
            .await?;
        if open.try_get::<_, i64>("open")? >= MAX_OPEN_RUNS {
            return Err(Error::Conflict(format!(
                "{MAX_OPEN_RUNS} imports are under way: wait for one to end, or cancel it"
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
        let what = json!({ "kind": order.kind, "format": order.format, "dryRun": order.dry_run });
        Entry::created("import_run.started", id, &what).record(tx, now).await?;
        Self::get(tx, id).await.map(Opened::New)
    }

    /// Whether this is what the same key may be answered with.
    fn check_is_of(&self, order: &ImportOrder) -> Result<()> {
        let ordered = (order.kind, order.format, order.dry_run, order.empty_cells);
        if (self.kind, self.format, self.dry_run, self.empty_cells) != ordered {
            return Err(Error::Conflict(
                "the idempotency key is that of another import, of other rows or ordered otherwise (kind, format, dryRun, emptyCells): \
                 give this one a key of its own"
                    .into(),
            ));
        }
        if self.received_at.is_none() {
            return Err(Error::Conflict(
                "the rows of the import with this idempotency key are still coming: send it again once that upload has ended"
                    .into(),
            ));
        }
        Ok(())
    }

    /// Keeps a part of the file until it is imported.
    ///
    /// # Errors
    /// `Conflict` if the run has ended meanwhile.
    pub async fn add_chunk(tx: &Tx, id: ImportRunId, table: &Table, chunk: &Chunk) -> Result<()> {
        let place: Option<Row> = tx
            .opt(
                "UPDATE import_run SET chunks = chunks + 1, rows = rows + $2, advanced_at = now()
                 WHERE id = $1 AND state = 'QUEUED' AND received_at IS NULL
                 RETURNING chunks - 1 AS place,
                     EXISTS (SELECT FROM import_table WHERE run_id = $1 AND kind = $3) AS is_table_kept",
                &[&id, &chunk.rows, &table.kind.as_str()],
            )
            .await?;
        let Some(place) = place else {
            return Err(Error::Conflict("the import has ended meanwhile".into()));
        };
        if !place.try_get::<_, bool>("is_table_kept")? {
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
                &place.try_get::<_, i32>("place")?,
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

    /// Notes that all rows have come. A file without rows is done.
    ///
    /// # Errors
    /// `Conflict` if the run has ended meanwhile.
    pub async fn received(tx: &Tx, id: ImportRunId, now: DateTime<Utc>) -> Result<Self> {
        let noted = tx
            .exec(
                "UPDATE import_run SET received_at = $2, advanced_at = now(),
                     state = CASE WHEN chunks = 0 THEN 'SUCCEEDED' ELSE state END,
                     finished_at = CASE WHEN chunks = 0 THEN $2::timestamptz END
                 WHERE id = $1 AND state = 'QUEUED' AND received_at IS NULL",
                &[&id, &now],
            )
            .await?;
        if noted == 0 {
            return Err(Error::Conflict("the import has ended meanwhile".into()));
        }
        tx.emit(Event::changed(tx.org(), id));
        let run = Self::get(tx, id).await?;
        if run.state.has_ended() {
            run.record_success(tx, RunState::Queued, now).await?;
        }
        Ok(run)
    }

    /// Takes a chunk to import it in this transaction; none if there is nothing to do any more. The row stays locked, so
    /// a cancellation waits, for as long as its session waits for locks: behind a chunk that takes longer it times out.
    pub async fn begin_chunk(tx: &Tx, id: ImportRunId, place: i32) -> Result<Option<Begun>> {
        let run: Option<Self> = tx
            .opt(
                &format!(
                    "{SELECT} WHERE id = $1 AND state IN ('QUEUED', 'RUNNING') AND chunks_done = $2 FOR UPDATE"
                ),
                &[&id, &place],
            )
            .await?;
        let Some(run) = run else { return Ok(None) };
        // A plan that was made while the inventory was empty would read all of it when it is full.
        tx.exec("SELECT set_config('enable_seqscan', 'off', true)", &[]).await?;
        let chunk: Row = tx
            .one(
                "WITH chunk AS (DELETE FROM import_chunk WHERE run_id = $1 AND place = $2
                                RETURNING org_id, run_id, kind, rows, numbers, content)
                 SELECT chunk.kind, columns, delimiter, rows, numbers, content
                 FROM chunk JOIN import_table USING (org_id, run_id, kind)",
                &[&id, &place],
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
        Ok(Some(Begun { run, table, chunk }))
    }

    /// Counts a chunk's rows; the place of the next chunk, or none when it was the last and the run has ended.
    pub async fn close_chunk(
        tx: &Tx,
        begun: &Begun,
        outcome: &Outcome,
        now: DateTime<Utc>,
    ) -> Result<Option<i32>> {
        let id = begun.run.id;
        Self::record_errors(tx, id, begun.table.kind, &outcome.faults).await?;
        let Outcome { created, updated, unchanged, .. } = outcome;
        let failed = begun.chunk.rows - created - updated - unchanged;
        let row: Row = tx
            .one(
                "UPDATE import_run SET
                     chunks_done = chunks_done + 1, done = done + $2, created = created + $3, updated = updated + $4,
                     unchanged = unchanged + $5, failed = failed + $6, advanced_at = now(),
                     state = CASE WHEN chunks_done + 1 = chunks THEN 'SUCCEEDED' ELSE 'RUNNING' END,
                     finished_at = CASE WHEN chunks_done + 1 = chunks THEN $7::timestamptz END
                 WHERE id = $1 RETURNING chunks_done, state = 'SUCCEEDED' AS is_last",
                &[&id, &begun.chunk.rows, created, updated, unchanged, &failed, &now],
            )
            .await?;
        tx.emit(Event::changed(tx.org(), id));
        if !row.try_get::<_, bool>("is_last")? {
            return Ok(Some(row.try_get("chunks_done")?));
        }
        // The run is locked since the chunk was taken.
        Self::get(tx, id).await?.record_success(tx, begun.run.state, now).await?;
        Ok(None)
    }

    async fn record_success(&self, tx: &Tx, before: RunState, now: DateTime<Utc>) -> Result<()> {
        let before = json!({ "state": before });
        Entry::changed("import_run.finished", self.id, before, self.result()).record(tx, now).await
    }

    /// Ends a run that cannot go on; what is imported stays.
    pub async fn fail(tx: &Tx, id: ImportRunId, reason: &str, now: DateTime<Utc>) -> Result<()> {
        let action = "import_run.failed";
        Self::end(tx, id, RunState::Failed, action, Some(reason), now).await.map(drop)
    }

    /// Ends a run whose rows do not come whole. One whose rows have all come is left as it is, and returned: whoever sent
    /// them did not hear so.
    pub async fn break_off(
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

    /// Ends a run before it is done; what is imported stays. While a chunk is being imported it waits for that.
    ///
    /// # Errors
    /// `Conflict` if it has ended already.
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
                     -- What never came whole may be sent again under the same key.
                     idempotency_key = CASE WHEN run.received_at IS NOT NULL THEN run.idempotency_key END
                 FROM before WHERE run.org_id = before.org_id AND run.id = before.id
                 RETURNING before.state",
                &[&id, &state.as_str(), &reason, &now],
            )
            .await?;
        let Some(before) = before else { return Ok(false) };
        let before = json!({ "state": before.try_get::<_, &str>("state")? });
        let after = json!({ "state": state, "error": reason });
        Entry::changed(action, id, before, after).record(tx, now).await?;
        tx.emit(Event::changed(tx.org(), id));
        Ok(true)
    }

    /// The run, or `None`.
    pub async fn find(tx: &Tx, id: ImportRunId) -> Result<Option<Self>> {
        tx.opt(&format!("{SELECT} WHERE id = $1"), &[&id]).await
    }

    /// The run.
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
        let kept: Row = tx
            .one(
                "WITH before AS (SELECT org_id, id, errors_kept FROM import_run WHERE id = $1 FOR UPDATE)
                 UPDATE import_run AS run SET errors_kept = LEAST(before.errors_kept + $2, $3)
                 FROM before WHERE run.org_id = before.org_id AND run.id = before.id
                 RETURNING before.errors_kept AS before, run.errors_kept AS after",
                &[&id, &i32::try_from(faults.len()).unwrap_or(MAX_ERRORS), &MAX_ERRORS],
            )
            .await?;
        let room = kept.try_get::<_, i32>("after")? - kept.try_get::<_, i32>("before")?;
        let faults = &faults[..usize::try_from(room).unwrap_or_default()];
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

/// As much of it as is kept.
fn truncated(text: &str) -> &str {
    text.char_indices().nth(MAX_MESSAGE_CHARS).map_or(text, |(end, _)| &text[..end])
}
