//! Parsing of the rows of a chunk into values by column, or into errors. A message quotes at most the beginning of the
//! input.

use async_graphql::MaybeUndefined::{self, Null, Undefined};
use serde_json::{Map, Value};

use super::{
    Chunk, EmptyCells, ImportFormat, ImportKind, RowError, Table,
    column::{AssetField, Column, SeenColumns, read_columns},
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

/// Maximum number of errors reported for one row.
const MAX_ROW_ERRORS: usize = 20;

/// Parsed values of a row of assets.
#[derive(Debug)]
pub(super) struct AssetRow {
    pub(super) number: i32,
    pub(super) code: Option<String>,
    pub(super) external_id: Option<String>,
    /// Changes to the asset, without owner and tags.
    pub(super) patch: Patch,
    /// E-mail address of the owner.
    pub(super) owner: MaybeUndefined<String>,
    /// Names of the tags.
    pub(super) tags: MaybeUndefined<Vec<String>>,
}

/// Unparsed values of a row, with their columns.
pub(super) struct Cells {
    pub(super) number: i32,
    pub(super) cells: Vec<(Column, Value)>,
}

/// Returns the rows of a chunk in the order of the file, each with its values or its errors.
///
/// # Errors
/// `Corrupt` if the number of rows differs from the number of row numbers.
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
    // A missing or additional row would shift the numbers of all later rows.
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
    for (index, record) in reader.records().enumerate() {
        let number = chunk.numbers.get(index).copied().unwrap_or_default();
        rows.push(match record {
            Ok(record) => csv_cells(&columns, empty, number, &record),
            Err(error) => Err(vec![row_error(number, None, format!("cannot be read: {error}"))]),
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
    // Missing cells at the end are empty, because a spreadsheet may omit them. Additional cells that are not empty are
    // an error: a comma was not quoted, or a quote is unbalanced.
    if record.len() > columns.len()
        && record.iter().skip(columns.len()).any(|cell| !cell.is_empty())
    {
        let message = format!(
            "has {} cells, but the header has {}: put a text that contains a comma in double quotes",
            record.len(),
            columns.len()
        );
        return Err(vec![row_error(number, None, message)]);
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
            match serde_json::from_str(&text) {
                Ok(value) => value,
                Err(error) => {
                    let name = Column::of_custom(key, false);
                    faults.push(row_error(number, Some(name), format!("is not JSON: {error}")));
                    continue;
                }
            }
        } else {
            Value::String(text.into_owned())
        };
        cells.push((column.clone(), value));
    }
    if faults.is_empty() { Ok(Cells { number, cells }) } else { Err(faults) }
}

fn read_json(kind: ImportKind, chunk: &Chunk) -> Vec<Result<Cells, Vec<RowError>>> {
    let lines = chunk.content.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let read = |(index, line): (usize, &[u8])| {
        let number = chunk.numbers.get(index).copied().unwrap_or_default();
        match serde_json::from_slice::<Value>(line) {
            Ok(Value::Object(object)) => json_cells(kind, number, object),
            Ok(_) => Err(vec![row_error(
                number,
                None,
                "must be an object, such as {\"name\": \"web-1\"}",
            )]),
            Err(error) => Err(vec![row_error(number, None, format!("is not JSON: {error}"))]),
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
    let mut seen = SeenColumns::default();
    let mut add = |name: &str, value: Value, faults: &mut Vec<FieldError>| {
        if faults.len() >= MAX_ROW_ERRORS {
            return;
        }
        let column = Column::parse(kind, name);
        match column.and_then(|column| seen.add(&column, name).map(|()| column)) {
            Ok(column) => cells.push((column, value)),
            Err(error) => faults.push(error),
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
            let message = "must be an object, such as {\"os_name\": \"Debian 12\"}; a key with the value null is removed";
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
    /// Parses the cells of a row.
    ///
    /// # Errors
    /// One error per invalid cell, up to [`MAX_ROW_ERRORS`].
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
                // A custom field can have one column for texts and one for JSON. At most one of the two cells can be
                // filled in.
                Column::Custom(key) | Column::CustomJson(key) => match custom.get(&key) {
                    None | Some(Value::Null) => {
                        custom.insert(key, value);
                    }
                    Some(_) if value.is_null() => {}
                    Some(_) => {
                        let message =
                            "is given twice, as a text and as JSON: fill in only one of the two";
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
        if faults.is_empty() { Ok(row) } else { Err(to_row_errors(number, faults)) }
    }

    fn set(&mut self, field: AssetField, value: Value, faults: &mut Vec<FieldError>) {
        let name = field.name();
        match field {
            AssetField::Code => {
                self.code = optional(name, value, faults).and_then(|code| {
                    let code = code.trim().to_uppercase();
                    let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '-';
                    let has_outer_dash = code.starts_with('-') || code.ends_with('-');
                    if !(3..=16).contains(&code.len()) || has_outer_dash || !code.chars().all(is_allowed) {
                        let message =
                            "is not a short code: use 3 to 16 letters and digits, with dashes between them, such as HST-4F7K2";
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
            AssetField::Name => self.patch.name = text_value(name, value, faults),
            AssetField::Location => self.patch.location = text_value(name, value, faults),
            AssetField::Description => self.patch.description = text_value(name, value, faults),
            AssetField::Type => {
                self.patch.asset_type = enum_value(name, value, AssetType::ALL, faults).take();
            }
            AssetField::Environment => {
                self.patch.environment = enum_value(name, value, Environment::ALL, faults);
            }
            AssetField::LifecycleState => {
                self.patch.lifecycle_state =
                    enum_value(name, value, LifecycleState::ALL, faults).take();
            }
            AssetField::Owner => {
                self.owner = match text_value(name, value, faults) {
                    MaybeUndefined::Value(given) => {
                        let Some(email) = normalise_email(&given) else {
                            let message =
                                format!("{:?} is not an e-mail address", beginning(&given));
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

/// Returns the text of a cell; `None` for null. Adds an error to `faults` for a boolean, a list or an object.
fn optional(path: &str, value: Value, faults: &mut Vec<FieldError>) -> Option<String> {
    text_value(path, value, faults).take()
}

pub(super) fn text_value(
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

/// Parses a value of an enum by its name, ignoring case. Adds an error with a suggestion to `faults` for another name.
pub(super) fn enum_value<T: Copy + EnumValue>(
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
    let message = format!("{:?} is not one of {}", beginning(given.trim()), names.join(", "));
    faults.push(FieldError { suggestion: near, ..FieldError::new(path, message) });
    Undefined
}

/// An enum with a name for each value.
pub(super) trait EnumValue: 'static {
    /// Returns the value's name, as in Postgres and in the API.
    fn name(&self) -> &'static str;
}

macro_rules! enum_values {
    ($($name:ty),+) => { $(impl EnumValue for $name { fn name(&self) -> &'static str { self.as_str() } })+ };
}
enum_values!(AssetType, Environment, LifecycleState);

fn tags(path: &str, value: Value, faults: &mut Vec<FieldError>) -> MaybeUndefined<Vec<String>> {
    let names: Vec<String> = match value {
        Value::Null => return Null,
        Value::String(text) => text.split([',', ';']).map(str::to_owned).collect(),
        Value::Array(items) => {
            let texts = items.into_iter().filter_map(|item| optional(path, item, faults));
            texts.collect()
        }
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            faults.push(FieldError::new(
                path,
                "must be a list of tags, or a text of tags separated by commas",
            ));
            return Undefined;
        }
    };
    let names = names.iter().filter(|name| !name.trim().is_empty());
    MaybeUndefined::Value(names.map(|name| tag::check_name(path, name, faults)).collect())
}

/// Converts errors in fields of the API to errors in a row, up to [`MAX_ROW_ERRORS`].
pub(super) fn to_row_errors(number: i32, faults: Vec<FieldError>) -> Vec<RowError> {
    faults.into_iter().take(MAX_ROW_ERRORS).map(|fault| to_row_error(number, fault)).collect()
}

/// Converts an error in a field of the API to an error in a row, with the name of the column.
pub(super) fn to_row_error(number: i32, error: FieldError) -> RowError {
    let path = match error.path.as_str() {
        "externalId" => "external_id".to_owned(),
        "type" => "asset_type".to_owned(),
        "lifecycleState" => "lifecycle_state".to_owned(),
        path => match path.strip_prefix("customFields") {
            Some(rest) => format!("custom{rest}"),
            None => path.to_owned(),
        },
    };
    at_column(number, FieldError { path, ..error })
}

/// Converts an error to an error in a row. The error's path already is the column name as in the file.
fn at_column(number: i32, FieldError { path, message, suggestion }: FieldError) -> RowError {
    RowError { row: number, column: Some(beginning(&path).into_owned()), message, suggestion }
}

pub(super) fn row_error(row: i32, column: Option<String>, message: impl Into<String>) -> RowError {
    RowError { row, column, message: message.into(), suggestion: None }
}

#[cfg(test)]
mod tests;
