//! A file of assets or dependencies on its way in: the run, its chunks of rows, what was wrong with some of them.
//! (`import/life`: the run's states; `import/sweep`: what is cleared away after it; `import/cut`: bytes into chunks;
//! `import/column`: the header; `import/row`: a row's cells; `import/assets`, `import/dependencies`: what a chunk does.)
//!
//! Chosen: rows are taken in whole before the first is imported, so an upload that breaks off changes nothing; then chunk
//! after chunk in the order of the file, each in the transaction that ends its job and asks for the next. So a killed
//! worker creates nothing twice, and which of two equal rows comes first does not depend on luck. Given up: chunks at the
//! same time; one after the other takes in some 4,000 rows a second.

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
pub(crate) use column::{AssetField, Column, DependencyField, MOST_COLUMNS};
pub use state::{Begun, Outcome};
pub use sweep::Sweep;

text_enum! {
    /// What the rows of a file are.
    ImportKind in "import_run"."kind" {
        /// Assets.
        Assets = "ASSETS",
        /// Which asset needs which.
        Dependencies = "DEPENDENCIES",
    }
}

text_enum! {
    /// How a file is written.
    ImportFormat in "import_run"."format" {
        /// A header and a row a line, with commas, semicolons or tabs between the cells.
        Csv = "CSV",
        /// A list of objects, or one object after the other.
        Json = "JSON",
    }
}

text_enum! {
    /// What an empty cell of a CSV file says.
    EmptyCells in "import_run"."empty_cells" {
        /// Nothing: what is there stays.
        Keep = "KEEP",
        /// That there is nothing: what is there is cleared.
        Clear = "CLEAR",
    }
}

/// One import.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
#[graphql(name = "ImportRunRow", directive = authenticated::apply())]
pub struct ImportRun {
    /// Its id.
    pub id: ImportRunId,
    /// Where it is in its life; it is queued while its rows are still coming.
    pub state: RunState,
    /// What its rows are; an import of both says `ASSETS`.
    pub kind: ImportKind,
    /// How they are written.
    pub format: ImportFormat,
    /// Whether it only says what it would do.
    pub dry_run: bool,
    /// What an empty cell says.
    pub empty_cells: EmptyCells,
    /// On whose behalf it runs.
    #[graphql(skip)]
    pub actor: Actor,
    /// Why it failed. Takes `ASSET_READ`.
    #[graphql(name = "reason", directive = requires::apply(Permission::AssetRead))]
    pub error: Option<String>,
    /// How many rows have come.
    pub rows: i32,
    /// How many are done: created, updated, unchanged or failed.
    pub done: i32,
    /// How many made something new.
    pub created: i32,
    /// How many changed something.
    pub updated: i32,
    /// How many said what was known.
    pub unchanged: i32,
    /// How many could not be imported; see `errors`.
    pub failed: i32,
    /// When it was started.
    pub started_at: DateTime<Utc>,
    /// When its last row had come.
    pub received_at: Option<DateTime<Utc>>,
    /// When it ended.
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

/// What is to be imported, and how.
#[derive(Debug, Clone)]
pub struct ImportOrder {
    /// What the rows are.
    pub kind: ImportKind,
    /// How they are written.
    pub format: ImportFormat,
    /// Only say what would be done.
    pub dry_run: bool,
    /// What an empty cell says.
    pub empty_cells: EmptyCells,
    /// The same key again is the same import again.
    pub idempotency_key: Option<String>,
}

/// What opening found: a new run, or that of the same idempotency key.
#[derive(Debug)]
pub enum Opened {
    /// A new run: its rows may come.
    New(ImportRun),
    /// The key has been used: this is what came of it.
    Existing(ImportRun),
}

/// What the cells of a chunk's rows are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// What the rows are.
    pub kind: ImportKind,
    /// The header of a CSV file; of JSON none.
    pub columns: Vec<String>,
    /// What stands between the cells.
    pub delimiter: u8,
}

/// A part of a file: whole rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chunk {
    /// How many rows of the file it stands for, those left out included.
    pub rows: i32,
    /// The number in the file of each row of the content.
    pub numbers: Vec<i32>,
    /// The rows as they stand in the file, each ended by a line feed; UTF-8.
    pub content: Vec<u8>,
    /// Rows that were left out, and why.
    pub faults: Vec<RowError>,
}

/// What is wrong with a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowError {
    /// Its number: of a CSV file the header is 1, of JSON the first object.
    pub row: i32,
    /// The column, where it is one's fault.
    pub column: Option<String>,
    /// What is wrong, as a sentence without a full stop.
    pub message: String,
    /// What was probably meant.
    pub suggestion: Option<String>,
}

/// What is wrong with a row of a file. Takes `ASSET_READ`.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
#[graphql(directive = requires::apply(Permission::AssetRead))]
pub struct ImportError {
    #[graphql(skip)]
    id: Uuid,
    /// What the row is.
    pub kind: ImportKind,
    /// The row's number: of a CSV file the header is 1, of JSON the first object is.
    pub row: i32,
    /// The column, where it is one's fault.
    pub column: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What was probably meant.
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
    /// The errors of a run, in the order of its rows.
    pub async fn list(tx: &Tx, run: ImportRunId, page: &PageRequest) -> Result<Page<Self>> {
        let by_row = Order { column: Some(("\"row\"", "integer")), id: "id", descending: false };
        let mut listing = Listing::default();
        listing.only("run_id = ?", &run);
        let sql = "SELECT id, kind, \"row\", \"column\", message, suggestion FROM import_error";
        listing.page(tx, sql, by_row, page).await
    }

    /// How many are kept: at most 10,000, while the run's `failed` counts all.
    pub async fn count(tx: &Tx, run: ImportRunId) -> Result<i64> {
        let mut listing = Listing::default();
        listing.only("run_id = ?", &run);
        listing.count(tx, "import_error").await
    }

    /// Its place in the list.
    pub fn position(&self) -> Position {
        Position { value: self.row.to_string(), id: self.id }
    }
}

/// Imports the rows of a chunk, or in a dry run says what would come of them.
pub async fn apply(tx: &Tx, begun: &Begun, now: DateTime<Utc>) -> Result<Outcome> {
    match begun.table.kind {
        ImportKind::Assets => assets::apply(tx, begun, now).await,
        ImportKind::Dependencies => dependencies::apply(tx, begun, now).await,
    }
}

fn count<T>(rows: &[T]) -> i32 {
    i32::try_from(rows.len()).expect("a chunk has a thousand rows")
}
