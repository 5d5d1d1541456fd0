//! Export of the inventory as a CSV file, page by page. Importing the file again changes nothing. `export/table`
//! formats cells and rows.
//!
//! Chosen: pages by id, each in its own transaction, so that a slow client does not keep a transaction open. Given up:
//! a consistent snapshot; an asset that changes during the export is written as it is when its page is read. The
//! columns are fixed when the export begins. If a later page needs another column, the export fails, so that no data is
//! omitted silently. The audit entry is recorded before the first row is sent.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value, json};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    access::audit::Entry,
    base::{
        db::{FromRow, Tx},
        error::{Error, Result},
    },
    inventory::{
        asset::Asset,
        attribute::{self, Attribute},
        import::{AssetField, Column, DependencyField, ImportKind, MAX_COLUMNS},
        owners::Owners,
    },
};

mod table;

use table::Table;
pub(crate) use table::put_row;

/// Number of rows per page.
const PAGE_ROWS: i64 = 1_000;
/// Number of assets per statement that collects keys, small enough for the statement timeout however many keys the
/// assets have.
const KEY_BATCH: i64 = 500;

/// An export that is in progress.
#[derive(Debug)]
pub struct Export {
    kind: ImportKind,
    owners: Owners,
    table: Table,
    /// Id of the last row of the previous page.
    after: Uuid,
    has_ended: bool,
}

impl Export {
    /// Determines the columns, and records an audit entry with the caller and the number of rows.
    ///
    /// # Errors
    /// `Conflict` if the assets have more different custom fields than a file can have columns.
    pub async fn begin(tx: &Tx, kind: ImportKind, owners: Owners) -> Result<Self> {
        let (table, rows, action) = match kind {
            ImportKind::Assets => {
                let keys = Keys::collect(tx).await?;
                (asset_table(&keys, owners), keys.assets, "asset.exported")
            }
            ImportKind::Dependencies => {
                let row: Row = tx.one("SELECT count(*) AS rows FROM dependency", &[]).await?;
                let fields = DependencyField::ALL.iter().map(|field| field.name().to_owned());
                let table = Table::new(fields);
                (table, row.try_get("rows")?, "dependency.exported")
            }
        };
        Entry::created(action, tx.org(), &json!({ "rows": rows })).record(tx).await?;
        Ok(Self { kind, owners, table, after: Uuid::nil(), has_ended: false })
    }

    /// Returns the header line, ended by CRLF.
    pub fn header(&self) -> Vec<u8> {
        self.table.header()
    }

    /// Returns the next page of rows as CSV lines, or `None` after the last page.
    ///
    /// # Errors
    /// `Conflict` if an asset has a key without a column, because the key was added after the export began.
    pub async fn page(&mut self, tx: &Tx) -> Result<Option<Vec<u8>>> {
        if self.has_ended {
            return Ok(None);
        }
        let mut content = Vec::new();
        let (rows, last) = match self.kind {
            ImportKind::Assets => self.assets(tx, &mut content).await?,
            ImportKind::Dependencies => self.dependencies(tx, &mut content).await?,
        };
        self.has_ended = rows < usize::try_from(PAGE_ROWS).unwrap_or(usize::MAX);
        self.after = last.unwrap_or(self.after);
        Ok((rows > 0).then_some(content))
    }

    async fn assets(&self, tx: &Tx, content: &mut Vec<u8>) -> Result<(usize, Option<Uuid>)> {
        let assets: Vec<ExportRow> = tx
            .all(
                "SELECT asset.id, asset.code, asset.external_id, asset.name, asset.type, asset.lifecycle_state,
                        asset.environment, asset.location, asset.description, asset.owner_id, asset.attributes,
                        asset.sources, asset.custom_fields, asset.created_at, asset.updated_at, owner.email AS owner,
                        ARRAY(SELECT tag.name FROM asset_tag
                              JOIN tag ON tag.org_id = asset_tag.org_id AND tag.id = asset_tag.tag_id
                              WHERE asset_tag.org_id = asset.org_id AND asset_tag.asset_id = asset.id
                              ORDER BY tag.folded) AS tags
                 FROM asset LEFT JOIN \"user\" AS owner ON owner.id = asset.owner_id
                 WHERE asset.id > $1 ORDER BY asset.id LIMIT $2",
                &[&self.after, &PAGE_ROWS],
            )
            .await?;
        for asset in &assets {
            self.table.put(&asset.cells(self.owners)?, content)?;
        }
        Ok((assets.len(), assets.last().map(|last| last.asset.id.uuid())))
    }

    async fn dependencies(&self, tx: &Tx, content: &mut Vec<u8>) -> Result<(usize, Option<Uuid>)> {
        let rows: Vec<Row> = tx
            .all(
                "SELECT dependency.id, source.code AS source_code, source.external_id AS source_external_id,
                        target.code AS target_code, target.external_id AS target_external_id,
                        dependency.kind, dependency.criticality
                 FROM dependency
                 JOIN asset AS source ON source.org_id = dependency.org_id AND source.id = dependency.source_id
                 JOIN asset AS target ON target.org_id = dependency.org_id AND target.id = dependency.target_id
                 WHERE dependency.id > $1 ORDER BY dependency.id LIMIT $2",
                &[&self.after, &PAGE_ROWS],
            )
            .await?;
        for row in &rows {
            let mut cells = HashMap::new();
            for field in DependencyField::ALL {
                let text: Option<String> = row.try_get(field.name())?;
                let is_enum = *field == DependencyField::Criticality;
                let text = text.map(|text| if is_enum { text.to_lowercase() } else { text });
                cells.insert(field.name().to_owned(), text.unwrap_or_default());
            }
            self.table.put(&cells, content)?;
        }
        let last = rows.last().map(|last| last.try_get("id")).transpose()?;
        Ok((rows.len(), last))
    }
}

/// All keys of attributes and custom fields that the assets of an organization have.
#[derive(Debug, Default)]
struct Keys {
    assets: i64,
    attributes: BTreeSet<String>,
    /// Names of the columns for the custom fields.
    custom: BTreeSet<String>,
}

impl Keys {
    /// Collects the keys of all assets, in batches.
    ///
    /// # Errors
    /// `Conflict` if there are more custom fields than an imported file can have. Otherwise the exported file could not
    /// be imported again, and the keys of one organization could exhaust the memory of the process.
    async fn collect(tx: &Tx) -> Result<Self> {
        let mut keys = Self::default();
        let (mut after, spaces) = (Uuid::nil(), spaces());
        let mut unseen: Vec<&str> =
            Attribute::all().iter().map(|attribute| attribute.key.as_str()).collect();
        // A custom field has one or two columns, so this number of columns always exceeds the maximum.
        let column_limit = i64::try_from(2 * MAX_COLUMNS + 1).unwrap_or(i64::MAX);
        loop {
            let part: Row = tx
                .one(
                    "WITH part AS MATERIALIZED (SELECT id, attributes, custom_fields FROM asset
                                                WHERE id > $1 ORDER BY id LIMIT $2),
                          custom AS MATERIALIZED (
                              SELECT DISTINCT key, jsonb_typeof(value) = 'string' AND btrim(value #>> '{}', $3) <> '' AS is_text
                              FROM part, jsonb_each(custom_fields) LIMIT $5)
                     SELECT (SELECT count(*) FROM part) AS assets,
                            (SELECT id FROM part ORDER BY id DESC LIMIT 1) AS last,
                            ARRAY(SELECT key FROM UNNEST($4::text[]) AS key
                                  WHERE EXISTS (SELECT FROM part WHERE attributes ? key)) AS attributes,
                            ARRAY(SELECT key FROM custom WHERE is_text) AS texts,
                            ARRAY(SELECT key FROM custom WHERE NOT is_text) AS others",
                    &[&after, &KEY_BATCH, &spaces, &unseen, &column_limit],
                )
                .await?;
            let assets: i64 = part.try_get("assets")?;
            keys.assets += assets;
            keys.attributes.extend(part.try_get::<_, Vec<String>>("attributes")?);
            unseen.retain(|key| !keys.attributes.contains(*key));
            for (column, is_text) in [("texts", true), ("others", false)] {
                let names: Vec<String> = part.try_get(column)?;
                keys.custom.extend(names.iter().map(|key| Column::of_custom(key, is_text)));
            }
            keys.check()?;
            match part.try_get("last")? {
                Some(last) if assets == KEY_BATCH => after = last,
                Some(_) | None => return Ok(keys),
            }
        }
    }

    fn check(&self) -> Result<()> {
        let max_custom_columns = MAX_COLUMNS - AssetField::ALL.len() - Attribute::all().len();
        if self.custom.len() <= max_custom_columns {
            return Ok(());
        }
        Err(Error::Conflict(format!(
            "the assets have more than {max_custom_columns} different custom fields, too many columns for one file: clear custom fields \
             that are not needed, for example by importing external_id and custom.<name> with emptyCells=clear"
        )))
    }
}

fn asset_table(keys: &Keys, owners: Owners) -> Table {
    let attributes = keys.attributes.iter().map(|key| format!("attributes.{key}"));
    let columns = fields(owners).map(|field| field.name().to_owned());
    Table::new(columns.chain(attributes).chain(keys.custom.iter().cloned()))
}

fn fields(owners: Owners) -> impl Iterator<Item = AssetField> {
    let is_included =
        move |field: &AssetField| *field != AssetField::Owner || owners == Owners::Included;
    AssetField::ALL.iter().copied().filter(is_included)
}

/// An asset with the e-mail address of its owner and the names of its tags.
struct ExportRow {
    asset: Asset,
    owner: Option<String>,
    tags: Vec<String>,
}

impl FromRow for ExportRow {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            asset: Asset::from_row(row)?,
            owner: row.try_get("owner")?,
            tags: row.try_get("tags")?,
        })
    }
}

impl ExportRow {
    /// Returns the asset's cells by column name.
    fn cells(&self, owners: Owners) -> Result<HashMap<String, String>> {
        let asset = &self.asset;
        let mut cells: HashMap<String, String> =
            fields(owners).map(|field| (field.name().to_owned(), self.cell(field))).collect();
        let attributes = object(&asset.attributes, "attributes")?;
        let attributes = attributes.iter().filter(|(key, _)| Attribute::of_key(key).is_some());
        cells.extend(
            attributes.map(|(key, value)| (format!("attributes.{key}"), attribute::cell(value))),
        );
        for (key, value) in object(&asset.custom_fields, "custom_fields")? {
            // As JSON, because an import treats a cell of spaces as empty.
            let text = value.as_str().filter(|text| !text.trim().is_empty());
            let column = Column::of_custom(key, text.is_some());
            // A text whose key itself ends in `:json` is written as JSON, because an import parses that column as JSON.
            let is_json = text.is_none() || column.ends_with(":json");
            let cell =
                if is_json { value.to_string() } else { text.unwrap_or_default().to_owned() };
            cells.insert(column, cell);
        }
        Ok(cells)
    }

    fn cell(&self, field: AssetField) -> String {
        let Self { asset, owner, tags } = self;
        let optional = |text: &Option<String>| text.clone().unwrap_or_default();
        match field {
            AssetField::Code => asset.code.clone(),
            AssetField::ExternalId => optional(&asset.external_id),
            AssetField::Name => asset.name.clone(),
            AssetField::Type => asset.asset_type.as_str().to_lowercase(),
            AssetField::Environment => asset.environment.as_str().to_lowercase(),
            AssetField::LifecycleState => asset.lifecycle_state.as_str().to_lowercase(),
            AssetField::Location => optional(&asset.location),
            AssetField::Description => optional(&asset.description),
            AssetField::Owner => optional(owner),
            AssetField::Tags => tags.join(","),
        }
    }
}

/// Returns all characters that [`str::trim`] removes, for `btrim` in Postgres.
fn spaces() -> String {
    ('\0'..='\u{3000}').filter(|character| character.is_whitespace()).collect()
}

fn object<'a>(value: &'a Value, column: &'static str) -> Result<&'a Map<String, Value>> {
    value.as_object().ok_or(Error::Corrupt { table: "asset", column })
}
