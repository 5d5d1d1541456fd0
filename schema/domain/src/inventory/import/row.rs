//! A chunk's rows, read: of each what its columns say, or what is wrong with it. What is wrong never repeats more than the
//! beginning of what was sent.

use async_graphql::MaybeUndefined::{self, Null, Undefined};
use serde_json::{Map, Value};

use super::{
    Chunk, EmptyCells, ImportFormat, ImportKind, RowError, Table,
    column::{AssetField, Column, Seen, read_columns},
};
use crate::{
    access::user::normalise_email,
    base::{
        error::{Error, FieldError, Result},
        nearest::nearest,
        text::{self, beginning, check_optional},
    },
    inventory::{
        asset::{AssetType, Environment, LifecycleState, Patch},
        formula, tag,
    },
};

/// Faults of one row that are told at most.
const FAULTS: usize = 20;

/// What a row says of an asset.
#[derive(Debug)]
pub(super) struct AssetRow {
    pub(super) number: i32,
    pub(super) code: Option<String>,
    pub(super) external_id: Option<String>,
    /// Without owner and tags, which are names here.
    pub(super) patch: Patch,
    pub(super) owner: MaybeUndefined<String>,
    pub(super) tags: MaybeUndefined<Vec<String>>,
}

/// What one row says, column by column.
pub(super) struct Cells {
    pub(super) number: i32,
    pub(super) cells: Vec<(Column, Value)>,
}

/// The rows of a chunk in the order of the file, each with what it says or with its faults.
pub(super) fn read(
    table: &Table,
    format: ImportFormat,
    empty: EmptyCells,
    chunk: &Chunk,
) -> Result<Vec<Result<Cells, Vec<RowError>>>> {
    let rows = match format {
        ImportFormat::Csv => read_csv(table, empty, chunk)?,
        ImportFormat::Json => read_json(table.kind, chunk),
    };
    // One more or less, and all behind it would have the numbers of others.
    if rows.len() != chunk.numbers.len() {
        return Err(Error::Corrupt { table: "import_chunk", column: "numbers" });
    }
    Ok(rows)
}

fn read_csv(
    table: &Table,
    empty: EmptyCells,
    chunk: &Chunk,
) -> Result<Vec<Result<Cells, Vec<RowError>>>> {
    let columns = read_columns(table.kind, &table.columns)?;
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(table.delimiter)
        .from_reader(chunk.content.as_slice());
    let mut rows = Vec::with_capacity(chunk.numbers.len());
    for (place, record) in reader.records().enumerate() {
        let number = chunk.numbers.get(place).copied().unwrap_or_default();
        rows.push(match record {
            Ok(record) => csv_cells(&columns, empty, number, &record),
            Err(error) => Err(vec![fault(number, None, format!("cannot be read: {error}"))]),
        });
    }
    Ok(rows)
}

fn csv_cells(
    columns: &[Column],
    empty: EmptyCells,
    number: i32,
    record: &csv::StringRecord,
) -> Result<Cells, Vec<RowError>> {
    // A spreadsheet may leave out empty cells at the end; cells too many are a quote or a comma gone wrong.
    if record.len() > columns.len()
        && record.iter().skip(columns.len()).any(|cell| !cell.is_empty())
    {
        let message = format!(
            "has {} cells, but the header has {}: a text with a comma in it stands in quotes",
            record.len(),
            columns.len()
        );
        return Err(vec![fault(number, None, message)]);
    }
    let mut cells = Vec::with_capacity(columns.len());
    let mut faults = Vec::new();
    for (column, cell) in columns.iter().zip(record) {
        let text = formula::restore(cell);
        let value = if text.trim().is_empty() {
            match empty {
                EmptyCells::Keep => continue,
                EmptyCells::Clear => Value::Null,
            }
        } else if let Column::CustomJson(key) = column {
            match serde_json::from_str(text) {
                Ok(value) => value,
                Err(error) => {
                    let name = Column::of_custom(key, false);
                    faults.push(fault(number, Some(name), format!("is not JSON: {error}")));
                    continue;
                }
            }
        } else {
            Value::String(text.to_owned())
        };
        cells.push((column.clone(), value));
    }
    if faults.is_empty() { Ok(Cells { number, cells }) } else { Err(faults) }
}

fn read_json(kind: ImportKind, chunk: &Chunk) -> Vec<Result<Cells, Vec<RowError>>> {
    let lines = chunk.content.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let read = |(place, line): (usize, &[u8])| {
        let number = chunk.numbers.get(place).copied().unwrap_or_default();
        match serde_json::from_slice::<Value>(line) {
            Ok(Value::Object(object)) => json_cells(kind, number, object),
            Ok(_) => {
                Err(vec![fault(number, None, "must be an object, such as {\"name\": \"web-1\"}")])
            }
            Err(error) => Err(vec![fault(number, None, format!("is not JSON: {error}"))]),
        }
    };
    lines.enumerate().map(read).collect()
}

fn json_cells(
    kind: ImportKind,
    number: i32,
    object: Map<String, Value>,
) -> Result<Cells, Vec<RowError>> {
    let (mut cells, mut faults) = (Vec::with_capacity(object.len()), Vec::new());
    let mut seen = Seen::default();
    let mut add = |name: &str, value: Value, faults: &mut Vec<FieldError>| {
        if faults.len() >= FAULTS {
            return;
        }
        let column = Column::parse(kind, name);
        match column.and_then(|column| seen.add(&column, name).map(|()| column)) {
            Ok(column) => cells.push((column, value)),
            Err(wrong) => faults.push(wrong),
        }
    };
    for (name, value) in object {
        let (prefix, suffix) = match name.as_str() {
            "attributes" if kind == ImportKind::Assets => ("attributes.", ""),
            "custom" | "customFields" | "custom_fields" if kind == ImportKind::Assets => {
                ("custom.", ":json")
            }
            _ => {
                add(&name, value, &mut faults);
                continue;
            }
        };
        let Value::Object(inner) = value else {
            let message = "must be an object, such as {\"os_name\": \"Debian 12\"}; what is null in it is removed";
            faults.push(FieldError::new(name, message));
            continue;
        };
        for (key, value) in inner {
            add(&format!("{prefix}{key}{suffix}"), value, &mut faults);
        }
    }
    if faults.is_empty() {
        Ok(Cells { number, cells })
    } else {
        Err(faults.into_iter().map(|fault| at_column(number, fault)).collect())
    }
}

impl AssetRow {
    /// What the cells say.
    pub(super) fn of(Cells { number, cells }: Cells) -> Result<Self, Vec<RowError>> {
        let mut row = Self {
            number,
            code: None,
            external_id: None,
            patch: Patch::default(),
            owner: Undefined,
            tags: Undefined,
        };
        let mut faults = Vec::new();
        let (mut attributes, mut custom) = (Map::new(), Map::new());
        for (column, value) in cells {
            match column {
                Column::Asset(field) => row.set(field, value, &mut faults),
                Column::Attribute(_, name) => {
                    attributes.insert(name, value);
                }
                // A key may have a column for texts and one for all else: of an asset at most one is filled.
                Column::Custom(key) | Column::CustomJson(key) => match custom.get(&key) {
                    None | Some(Value::Null) => {
                        custom.insert(key, value);
                    }
                    Some(_) if value.is_null() => {}
                    Some(_) => {
                        let message = "is given twice, as a text and as JSON: fill one of both";
                        faults.push(FieldError::new(Column::of_custom(&key, true), message));
                    }
                },
                Column::Dependency(_) => {
                    unreachable!("a column of assets is read as one of their fields")
                }
            }
        }
        if !attributes.is_empty() {
            row.patch.attributes = MaybeUndefined::Value(Value::Object(attributes));
        }
        if !custom.is_empty() {
            row.patch.custom_fields = MaybeUndefined::Value(Value::Object(custom));
        }
        if faults.is_empty() { Ok(row) } else { Err(of_columns(number, faults)) }
    }

    fn set(&mut self, field: AssetField, value: Value, faults: &mut Vec<FieldError>) {
        let name = field.name();
        match field {
            AssetField::Code => {
                self.code = optional(name, value, faults).and_then(|code| {
                    let code = code.trim().to_uppercase();
                    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
                    let ends = code.starts_with('-') || code.ends_with('-');
                    if !(3..=16).contains(&code.len()) || ends || !code.chars().all(fits) {
                        let message =
                            "is no short code: 3 to 16 letters, digits and dashes between them, such as HST-4F7K2";
                        faults.push(FieldError::new(name, message));
                        return None;
                    }
                    Some(code)
                });
            }
            AssetField::ExternalId => {
                let text = optional(name, value, faults);
                self.external_id = check_optional(name, text.as_deref(), text::NAME, faults);
            }
            AssetField::Name => self.patch.name = texts(name, value, faults),
            AssetField::Location => self.patch.location = texts(name, value, faults),
            AssetField::Description => self.patch.description = texts(name, value, faults),
            AssetField::Type => {
                self.patch.asset_type = choice(name, value, AssetType::ALL, faults).take();
            }
            AssetField::Environment => {
                self.patch.environment = choice(name, value, Environment::ALL, faults);
            }
            AssetField::LifecycleState => {
                self.patch.lifecycle_state =
                    choice(name, value, LifecycleState::ALL, faults).take();
            }
            AssetField::Owner => {
                self.owner = match texts(name, value, faults) {
                    MaybeUndefined::Value(given) => {
                        let Some(email) = normalise_email(&given) else {
                            let message = format!("{:?} is no e-mail", beginning(&given));
                            faults.push(FieldError::new(name, message));
                            return;
                        };
                        MaybeUndefined::Value(email)
                    }
                    other => other,
                };
            }
            AssetField::Tags => self.tags = tags(name, value, faults),
        }
    }
}

/// The text of a value; none for null.
fn optional(path: &str, value: Value, faults: &mut Vec<FieldError>) -> Option<String> {
    texts(path, value, faults).take()
}

pub(super) fn texts(
    path: &str,
    value: Value,
    faults: &mut Vec<FieldError>,
) -> MaybeUndefined<String> {
    match value {
        Value::Null => Null,
        Value::String(text) => MaybeUndefined::Value(text),
        Value::Number(number) => MaybeUndefined::Value(number.to_string()),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            faults.push(FieldError::new(path, "must be a text"));
            Undefined
        }
    }
}

/// One of an enum's names, whatever its case.
pub(super) fn choice<T: Copy + Named>(
    path: &str,
    value: Value,
    all: &'static [T],
    faults: &mut Vec<FieldError>,
) -> MaybeUndefined<T> {
    let Some(given) = optional(path, value, faults) else { return Null };
    let folded = given.trim().to_uppercase().replace([' ', '-'], "_");
    if let Some(found) = all.iter().find(|known| known.name() == folded) {
        return MaybeUndefined::Value(*found);
    }
    let names: Vec<String> = all.iter().map(|known| known.name().to_lowercase()).collect();
    let near = nearest(&folded, names.iter().map(String::as_str)).map(str::to_owned);
    let message = format!("{:?} is none of {}", beginning(given.trim()), names.join(", "));
    faults.push(FieldError { suggestion: near, ..FieldError::new(path, message) });
    Undefined
}

/// An enum of ours.
pub(super) trait Named: 'static {
    /// As in Postgres and in the API.
    fn name(&self) -> &'static str;
}

macro_rules! named {
    ($($name:ty),+) => { $(impl Named for $name { fn name(&self) -> &'static str { self.as_str() } })+ };
}
named!(AssetType, Environment, LifecycleState);

fn tags(path: &str, value: Value, faults: &mut Vec<FieldError>) -> MaybeUndefined<Vec<String>> {
    let names: Vec<String> = match value {
        Value::Null => return Null,
        Value::String(text) => text.split([',', ';']).map(str::to_owned).collect(),
        Value::Array(items) => {
            let texts = items.into_iter().filter_map(|item| optional(path, item, faults));
            texts.collect()
        }
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            faults.push(FieldError::new(path, "must be tags, separated by commas"));
            return Undefined;
        }
    };
    let names = names.iter().filter(|name| !name.trim().is_empty());
    MaybeUndefined::Value(names.map(|name| tag::check_name(path, name, faults)).collect())
}

/// Faults of the API's input as those of a file's row; of very many the first.
pub(super) fn of_columns(number: i32, faults: Vec<FieldError>) -> Vec<RowError> {
    faults.into_iter().take(FAULTS).map(|fault| of_column(number, fault)).collect()
}

/// A fault of the API's input as one of a file's row.
pub(super) fn of_column(number: i32, wrong: FieldError) -> RowError {
    let path = match wrong.path.as_str() {
        "externalId" => "external_id".to_owned(),
        "type" => "asset_type".to_owned(),
        "lifecycleState" => "lifecycle_state".to_owned(),
        path => match path.strip_prefix("customFields") {
            Some(rest) => format!("custom{rest}"),
            None => path.to_owned(),
        },
    };
    at_column(number, FieldError { path, ..wrong })
}

/// A fault at the name of a column as it was sent.
fn at_column(number: i32, FieldError { path, message, suggestion }: FieldError) -> RowError {
    RowError { row: number, column: Some(beginning(&path).into_owned()), message, suggestion }
}

pub(super) fn fault(row: i32, column: Option<String>, message: impl Into<String>) -> RowError {
    RowError { row, column, message: message.into(), suggestion: None }
}

#[cfg(test)]
mod tests;
