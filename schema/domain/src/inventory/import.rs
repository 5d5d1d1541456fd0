//! Imports of assets and dependencies from a file. An import run stores the rows of one upload in chunks, imports them
//! chunk by chunk, and reports errors in single rows.
//!
//! - `import/state`: the states of a run.
//! - `import/sweep`: clean-up after a run.
//! - `import/chunker`: splits the bytes of a file into chunks of complete rows.
//! - `import/column`: parses the header.
//! - `import/row`: parses the cells of a row.
//! - `import/assets`, `import/dependencies`: import a chunk of assets or of dependencies.
//! - `import/dedupe`: finds rows that repeat an asset or dependency of an earlier row.
//!
//! Chosen: all rows are stored before the first row is imported, so that an incomplete upload changes nothing. The
//! chunks are then imported in the order of the file, each by a job. One transaction imports a chunk, completes the
//! chunk's job and pushes the job of the next chunk. Therefore a killed worker creates nothing twice, and of two rows
//! for the same asset always the first is imported. Given up: parallel chunks; one after another, about 4,000 rows are
//! imported per second.

use async_graphql::SimpleObject;
use chrono::{DateTime, Utc};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    access::{
        directive::{authenticated, requires},
        permission::Permission,
    },
    base::{
        actor::Actor,
        db::{FromRow, Tx},
        entity::ImportRunId,
        error::{Error, Result},
        listing::{Listing, Order},
        page::{Page, PageRequest, Position},
        run_state::RunState,
        text::text_enum,
    },
    inventory::owners::Owners,
};

mod assets;
pub mod chunker;
mod column;
mod dedupe;
mod dependencies;
mod row;
mod state;
mod sweep;

pub use column::check_columns;
pub(crate) use column::{AssetField, Column, DependencyField, MAX_COLUMNS};
pub use state::{ClaimedChunk, Outcome};
pub use sweep::Sweep;

text_enum! {
    /// Kind of the rows in an imported file.
    ImportKind in "import_run"."kind" {
        /// The rows (CSV) or objects (JSON) are assets.
        Assets = "ASSETS",
        /// The rows (CSV) or objects (JSON) are dependencies between assets.
        Dependencies = "DEPENDENCIES",
    }
}

text_enum! {
    /// Format of an imported file.
    ImportFormat in "import_run"."format" {
        /// CSV: a header line, then one row per line. The cells are separated by commas, semicolons or tabs.
        Csv = "CSV",
        /// JSON: a list of objects, or a sequence of objects, e.g. one per line.
        Json = "JSON",
    }
}

text_enum! {
    /// Effect of an empty cell in a CSV file.
    EmptyCells in "import_run"."empty_cells" {
        /// The field keeps its current value.
        Keep = "KEEP",
        /// The field is cleared.
        Clear = "CLEAR",
    }
}

/// An import run: the import of one uploaded file, or of rows passed inline as texts, with progress and result.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
#[graphql(name = "ImportRunRow", directive = authenticated::apply())]
pub struct ImportRun {
    /// The import's id, beginning `imp_`.
    pub id: ImportRunId,
    /// State of the import: `QUEUED` while the rows are being received (`receivedAt` is null) and until a worker has
    /// imported the first of them, then `RUNNING`, and at the end `SUCCEEDED`, `FAILED` or `CANCELLED`.
    pub state: RunState,
    /// Kind of the rows. `ASSETS` also if the mutation `importAssets` was given assets together with dependencies; each
    /// of the `errors` then has the kind of its row.
    pub kind: ImportKind,
    /// Format of the imported file or text.
    pub format: ImportFormat,
    /// True for a dry run, which counts the changes and errors but changes nothing.
    pub dry_run: bool,
    /// Effect of empty cells in a CSV file.
    pub empty_cells: EmptyCells,
    /// The actor who submitted the import.
    #[graphql(skip)]
    pub actor: Actor,
    /// Reason why the import failed; null if the import did not fail. Requires `ASSET_READ`.
    #[graphql(name = "reason", directive = requires::apply(Permission::AssetRead))]
    pub error: Option<String>,
    /// Number of rows received so far.
    pub rows: i32,
    /// Number of rows processed so far: the sum of `created`, `updated`, `unchanged` and `failed`.
    pub done: i32,
    /// Number of rows that created an asset or dependency.
    pub created: i32,
    /// Number of rows that changed an asset or dependency.
    pub updated: i32,
    /// Number of rows that changed nothing.
    pub unchanged: i32,
    /// Number of rows that could not be imported. `errors` has the reasons.
    pub failed: i32,
    /// Time at which the import was submitted.
    pub started_at: DateTime<Utc>,
    /// Time at which the last row was received. Null while rows are being received, and if the import failed or was
    /// cancelled before the last row was received.
    pub received_at: Option<DateTime<Utc>>,
    /// Time at which the import succeeded, failed or was cancelled; null while it is in progress.
    pub finished_at: Option<DateTime<Utc>>,
}

impl FromRow for ImportRun {
    fn from_row(row: &Row) -> Result<Self> {
        let actor_id: Option<Uuid> = row.try_get("actor_id")?;
        Ok(Self {
            id: row.try_get("id")?,
            state: RunState::from_column("import_run", row.try_get("state")?)?,
            kind: ImportKind::from_column(row.try_get("kind")?)?,
            format: ImportFormat::from_column(row.try_get("format")?)?,
            dry_run: row.try_get("dry_run")?,
            empty_cells: EmptyCells::from_column(row.try_get("empty_cells")?)?,
            actor: Actor::from_columns(row.try_get("actor_kind")?, actor_id)
                .ok_or(Error::Corrupt { table: "import_run", column: "actor_kind" })?,
            error: row.try_get("error")?,
            rows: row.try_get("rows")?,
            done: row.try_get("done")?,
            created: row.try_get("created")?,
            updated: row.try_get("updated")?,
            unchanged: row.try_get("unchanged")?,
            failed: row.try_get("failed")?,
            started_at: row.try_get("started_at")?,
            received_at: row.try_get("received_at")?,
            finished_at: row.try_get("finished_at")?,
        })
    }
}

/// Parameters of a new import run.
#[derive(Debug, Clone)]
pub struct ImportOrder {
    /// Kind of the rows; `Assets` if the order has both assets and dependencies.
    pub kind: ImportKind,
    /// Format of the file or text.
    pub format: ImportFormat,
    /// True for a dry run, which counts the changes and errors but changes nothing.
    pub dry_run: bool,
    /// Effect of empty cells in a CSV file.
    pub empty_cells: EmptyCells,
    /// Idempotency key of the caller: a second order with the same key returns the run of the first.
    pub idempotency_key: Option<String>,
}

/// Result of opening a run: a new run, or an earlier one with the same idempotency key.
#[derive(Debug)]
pub enum Opened {
    /// A new run, which is ready to receive rows.
    New(ImportRun),
    /// The run that an earlier order with the same key opened.
    Existing(ImportRun),
}

/// Kind, columns and delimiter of the rows of a file. A run stores one for its assets and one for its dependencies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Kind of the rows.
    pub kind: ImportKind,
    /// Columns of a CSV file, from its header; empty for JSON.
    pub columns: Vec<String>,
    /// Byte that separates the cells of a CSV row.
    pub delimiter: u8,
}

/// A part of a file: a sequence of complete rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chunk {
    /// Number of rows in this part of the file, including the rows that were left out.
    pub rows: i32,
    /// Row number in the file of each row in `content`.
    pub numbers: Vec<i32>,
    /// Rows in UTF-8, each ended by a line feed: CSV rows as in the file, JSON objects on one line each.
    pub content: Vec<u8>,
    /// Errors of the rows that were left out because they cannot be read.
    pub faults: Vec<RowError>,
}

/// An error in one row of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowError {
    /// Number of the row. In CSV the header is row 1; in JSON the first object is row 1.
    pub row: i32,
    /// Column that causes the error; `None` if no single column does.
    pub column: Option<String>,
    /// Description of the error, as a sentence without a full stop.
    pub message: String,
    /// Value that was probably intended, or advice on how to correct the row; `None` if there is neither.
    pub suggestion: Option<String>,
}

/// An error in one row of an imported file. Requires `ASSET_READ`.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
#[graphql(directive = requires::apply(Permission::AssetRead))]
pub struct ImportError {
    #[graphql(skip)]
    id: Uuid,
    /// Kind of the row: asset or dependency.
    pub kind: ImportKind,
    /// Number of the row. In CSV the header is row 1; in JSON the first object is row 1.
    pub row: i32,
    /// Column that causes the error; null if no single column does.
    pub column: Option<String>,
    /// Description of the error, as a sentence without a full stop.
    pub message: String,
    /// Value that was probably intended, or advice on how to correct the row; null if there is neither.
    pub suggestion: Option<String>,
}

impl FromRow for ImportError {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.try_get("id")?,
            kind: ImportKind::from_column(row.try_get("kind")?)?,
            row: row.try_get("row")?,
            column: row.try_get("column")?,
            message: row.try_get("message")?,
            suggestion: row.try_get("suggestion")?,
        })
    }
}

impl ImportError {
    /// Returns a page of the stored errors of a run, in the order of the rows.
    pub async fn list(tx: &Tx, run: ImportRunId, page: &PageRequest) -> Result<Page<Self>> {
        let by_row = Order { column: Some(("\"row\"", "integer")), id: "id", descending: false };
        let mut listing = Listing::default();
        listing.filter("run_id = ?", &run);
        let sql = "SELECT id, kind, \"row\", \"column\", message, suggestion FROM import_error";
        listing.page(tx, sql, by_row, page).await
    }

    /// Returns the number of stored errors of a run, at most 10,000. The run's `failed` counts all failed rows.
    pub async fn count(tx: &Tx, run: ImportRunId) -> Result<i64> {
        let mut listing = Listing::default();
        listing.filter("run_id = ?", &run);
        listing.count(tx, "import_error").await
    }

    /// Returns the error's position in the run's list of errors.
    pub fn position(&self) -> Position {
        Position { value: self.row.to_string(), id: self.id }
    }
}

/// Imports the rows of a chunk, and returns the outcome. In a dry run, only determines the outcome.
pub async fn apply(
    tx: &Tx,
    claimed: &ClaimedChunk,
    owners: Owners,
    now: DateTime<Utc>,
) -> Result<Outcome> {
    match claimed.table.kind {
        ImportKind::Assets => assets::apply(tx, claimed, owners, now).await,
        ImportKind::Dependencies => dependencies::apply(tx, claimed, now).await,
    }
}

fn count<T>(rows: &[T]) -> i32 {
    i32::try_from(rows.len()).expect("a chunk has at most a thousand rows")
}
