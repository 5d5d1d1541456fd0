//! The columns that an imported file can have: parsing of their names, and suggestions for unknown names.

use std::collections::HashMap;

use super::ImportKind;
use crate::{
    base::{
        error::{Error, FieldError, Result},
        nearest::nearest,
        text::beginning,
    },
    inventory::{
        attribute::{self, Attribute},
        formula,
        owners::Owners,
    },
};

/// Maximum number of columns in a file.
pub(crate) const MAX_COLUMNS: usize = 500;
/// Suffix of the column names of custom fields with values other than texts; the cells are JSON.
const JSON: &str = ":json";

/// Maximum length of a custom field's name, in characters.
const MAX_CUSTOM_NAME_CHARS: usize = 64;

/// Defines an enum of fields, with the name and the aliases of the column for each field. The aliases include the field
/// names of the API.
macro_rules! fields {
    ($(#[$meta:meta])* $name:ident { $($field:ident = $column:literal $(or $alias:literal)*,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(crate) enum $name { $($field,)+ }

        impl $name {
            /// All fields, in the order of the columns of an exported file.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$field,)+];

            /// Returns the name of the field's column.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$field => $column,)+ }
            }

            fn find(name: &str) -> Option<Self> {
                match name {
                    $($column $(| $alias)* => Some(Self::$field),)+
                    _ => None,
                }
            }
        }
    };
}

fields! {
    /// Fields of an asset, except attributes and custom fields.
    AssetField {
        Code = "code" or "short_code",
        ExternalId = "external_id" or "externalid",
        Name = "name",
        Type = "asset_type" or "type" or "assettype",
        Environment = "environment",
        LifecycleState = "lifecycle_state" or "lifecyclestate",
        Location = "location",
        Description = "description",
        Owner = "owner" or "owner_email",
        Tags = "tags",
    }
}

fields! {
    /// Fields of a dependency.
    DependencyField {
        SourceCode = "source_code" or "sourcecode",
        SourceExternalId = "source_external_id" or "sourceexternalid",
        TargetCode = "target_code" or "targetcode",
        TargetExternalId = "target_external_id" or "targetexternalid",
        Kind = "kind",
        Criticality = "criticality",
    }
}

/// A column of a file: the field that its cells set.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Column {
    /// A field of an asset.
    Asset(AssetField),
    /// A field of a dependency.
    Dependency(DependencyField),
    /// An attribute: its key, and the key or alias in the column's name.
    Attribute(&'static str, String),
    /// A custom field whose value is the cell's text.
    Custom(String),
    /// A custom field whose value is the cell parsed as JSON.
    CustomJson(String),
}

fn fields(kind: ImportKind) -> Vec<&'static str> {
    match kind {
        ImportKind::Assets => AssetField::ALL.iter().map(|field| field.name()).collect(),
        ImportKind::Dependencies => DependencyField::ALL.iter().map(|field| field.name()).collect(),
    }
}

impl Column {
    /// Parses the name of a column.
    ///
    /// # Errors
    /// An error that suggests the most similar column name.
    pub(super) fn parse(kind: ImportKind, name: &str) -> Result<Self, FieldError> {
        // Earlier versions accepted custom fields with spaces at the end of the name, so these are kept.
        let (untrimmed, name) = (name.trim_start(), name.trim());
        if kind == ImportKind::Assets {
            if let Some(key) = strip_any_prefix(name, &["attributes.", "attribute."]) {
                let found = attribute::find(key, &beginning(name)).map_err(|fault| FieldError {
                    suggestion: fault.suggestion.map(|key| format!("attributes.{key}")),
                    ..fault
                })?;
                return Ok(Self::Attribute(found.key.as_str(), key.trim().to_owned()));
            }
            if let Some(key) =
                strip_any_prefix(untrimmed, &["custom.", "custom_fields.", "customfields."])
            {
                let column = match key.strip_suffix(JSON) {
                    Some(key) => Self::CustomJson(key.to_owned()),
                    None => Self::Custom(key.to_owned()),
                };
                return check_custom(name, column);
            }
        }
        let folded = name.to_lowercase().replace([' ', '-'], "_");
        let known = match kind {
            ImportKind::Assets => AssetField::find(&folded).map(Self::Asset),
            ImportKind::Dependencies => DependencyField::find(&folded).map(Self::Dependency),
        };
        known.ok_or_else(|| FieldError {
            suggestion: suggestion(kind, &folded),
            ..FieldError::new(beginning(name), unknown(kind, name))
        })
    }

    /// Returns the column name that an exported file has for a custom field with a text, or with another value.
    pub(crate) fn of_custom(key: &str, is_text: bool) -> String {
        let suffix = if is_text && !key.ends_with(JSON) { "" } else { JSON };
        format!("custom.{key}{suffix}")
    }

    /// Returns a key of the field that the column sets. Two columns of a file must not have the same key.
    fn field_key(&self) -> String {
        match self {
            Self::Asset(field) => field.name().to_owned(),
            Self::Dependency(field) => field.name().to_owned(),
            Self::Attribute(key, _) => format!("attributes.{key}"),
            Self::Custom(key) => Self::of_custom(key, true),
            Self::CustomJson(key) => Self::of_custom(key, false),
        }
    }
}

fn strip_any_prefix<'a>(name: &'a str, prefixes: &[&str]) -> Option<&'a str> {
    prefixes.iter().find_map(|prefix| {
        let head = name.get(..prefix.len())?;
        head.eq_ignore_ascii_case(prefix).then(|| &name[prefix.len()..])
    })
}

/// Checks the name of a custom field, so that an invalid header is rejected once instead of with an error per row.
fn check_custom(name: &str, column: Column) -> Result<Column, FieldError> {
    let (Column::Custom(key) | Column::CustomJson(key)) = &column else { return Ok(column) };
    if key.is_empty()
        || key.chars().count() > MAX_CUSTOM_NAME_CHARS
        || key.chars().any(char::is_control)
    {
        let message = format!(
            "the name of a custom field must have 1 to {MAX_CUSTOM_NAME_CHARS} characters and no control characters"
        );
        return Err(FieldError::new(beginning(name), message));
    }
    Ok(column)
}

/// Column names parsed so far, by the key of the field that each column sets.
#[derive(Debug, Default)]
pub(super) struct SeenColumns(HashMap<String, String>);

impl SeenColumns {
    /// Adds a column.
    ///
    /// # Errors
    /// Fails if an earlier column sets the same field.
    pub(super) fn add(&mut self, column: &Column, name: &str) -> Result<(), FieldError> {
        let name = beginning(name.trim()).into_owned();
        let Some(first) = self.0.insert(column.field_key(), name.clone()) else { return Ok(()) };
        let message = if first == name {
            "is given twice: keep only one of them".to_owned()
        } else {
            format!("sets the same field as the column {first:?}: keep only one of them")
        };
        Err(FieldError::new(name, message))
    }

    fn has(&self, field_key: &str) -> bool {
        self.0.contains_key(field_key)
    }
}

fn unknown(kind: ImportKind, name: &str) -> String {
    if name.is_empty() {
        return "a column has no name: name the column or delete it".to_owned();
    }
    let (name, names) = (beginning(name), fields(kind).join(", "));
    match kind {
        ImportKind::Assets => format!(
            "{name:?} is not a column: use one of {names}, attributes.<key> or custom.<name>"
        ),
        ImportKind::Dependencies => format!("{name:?} is not a column: use one of {names}"),
    }
}

/// Returns the most similar column name, or an attribute's column if only the prefix `attributes.` is missing.
fn suggestion(kind: ImportKind, folded: &str) -> Option<String> {
    if kind == ImportKind::Assets
        && let Ok(attribute) = attribute::find(folded, "")
    {
        return Some(format!("attributes.{}", attribute.key));
    }
    let near = nearest(folded, fields(kind));
    near.map(str::to_owned).or_else(|| {
        let key = (kind == ImportKind::Assets).then(|| attribute::suggestion(folded))??;
        Some(format!(
            "attributes.{}",
            Attribute::of_key(&key).map_or(key.as_str(), |known| &known.key)
        ))
    })
}

/// Checks the header of a CSV file.
///
/// # Errors
/// `Invalid` with one error per unknown or repeated column. If there are none, `Invalid` if no column identifies the
/// asset, or the source or target of a dependency. `Invalid` for a column of owners if `owners` are omitted.
pub fn check_columns(kind: ImportKind, columns: &[String], owners: Owners) -> Result<()> {
    let is_owner = |column: &Column| matches!(column, Column::Asset(AssetField::Owner));
    if read_columns(kind, columns)?.iter().any(is_owner) && owners == Owners::Omitted {
        return Err(Error::invalid("owner", Owners::REFUSED));
    }
    Ok(())
}

pub(super) fn read_columns(kind: ImportKind, names: &[String]) -> Result<Vec<Column>> {
    if names.len() > MAX_COLUMNS {
        let message = format!("has {} columns, at most {MAX_COLUMNS} are allowed", names.len());
        return Err(Error::invalid("header", message));
    }
    let mut faults = Vec::new();
    let mut columns = Vec::with_capacity(names.len());
    let mut seen = SeenColumns::default();
    for name in names {
        match Column::parse(kind, &formula::restore(name)) {
            Ok(column) => {
                faults.extend(seen.add(&column, name).err());
                columns.push(column);
            }
            Err(fault) => faults.push(fault),
        }
    }
    // An unknown column may be the missing one with a spelling error, so only the unknown column is reported.
    if faults.is_empty() {
        match kind {
            ImportKind::Assets => {
                if !seen.has("external_id") && !seen.has("code") && !seen.has("name") {
                    let message = "no column identifies the asset: add external_id, code or name";
                    faults.push(FieldError::new("header", message));
                }
            }
            ImportKind::Dependencies => {
                for side in ["source", "target"] {
                    if !seen.has(&format!("{side}_external_id"))
                        && !seen.has(&format!("{side}_code"))
                    {
                        let message = format!(
                            "no column identifies the {side}: add {side}_external_id or {side}_code"
                        );
                        faults.push(FieldError::new("header", message));
                    }
                }
            }
        }
    }
    if faults.is_empty() { Ok(columns) } else { Err(Error::Invalid(faults)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: ImportKind, header: &str) -> Vec<(String, Option<String>)> {
        let columns: Vec<String> = header.split(',').map(str::to_owned).collect();
        match check_columns(kind, &columns, Owners::Included) {
            Ok(()) => Vec::new(),
            Err(Error::Invalid(faults)) => {
                faults.into_iter().map(|fault| (fault.path, fault.suggestion)).collect()
            }
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn headers_are_read_however_they_are_spelled() {
        for header in [
            "external_id,name,asset_type,attributes.os_name,custom.serial,custom.seats:json",
            "External ID,Name,Type,Lifecycle State,Environment,attributes.os_eol",
            "externalId,name,type,lifecycleState,customFields.room",
            "name",
        ] {
            assert_eq!(check(ImportKind::Assets, header), [], "{header}");
        }
        assert_eq!(check(ImportKind::Dependencies, "source_code,target_external_id,kind"), []);
    }

    #[test]
    fn what_is_no_column_suggests_the_nearest() {
        for (header, path, suggestion) in [
            ("name,enviroment", "enviroment", Some("environment")),
            ("name,os_name", "os_name", Some("attributes.os_name")),
            (
                "name,attributes.disk_encypted",
                "attributes.disk_encypted",
                Some("attributes.disk_encrypted"),
            ),
            ("name,zebra", "zebra", None),
            ("name,", "", None),
            ("name,Name", "Name", None),
            (
                "name,attributes.edr_present,attributes.edr_installed",
                "attributes.edr_installed",
                None,
            ),
            ("location", "header", None),
        ] {
            let expected = [(path.to_owned(), suggestion.map(str::to_owned))];
            assert_eq!(check(ImportKind::Assets, header), expected, "{header}");
        }
        assert_eq!(check(ImportKind::Dependencies, "source_code,kind").len(), 1);
    }

    #[test]
    fn a_custom_field_that_no_asset_can_have_is_refused_at_the_header() {
        for key in ["x".repeat(65), "x".repeat(200_000), String::new(), "a\u{7}b".to_owned()] {
            for header in [format!("name,custom.{key}"), format!("name,custom.{key}:json")] {
                let columns: Vec<String> = header.split(',').map(str::to_owned).collect();
                let Err(Error::Invalid(faults)) =
                    check_columns(ImportKind::Assets, &columns, Owners::Included)
                else {
                    panic!("{} characters are too many", key.len())
                };
                assert!(faults[0].path.len() < 200 && faults[0].message.contains("1 to 64"));
            }
        }
        assert_eq!(check(ImportKind::Assets, &format!("name,custom.{}", "x".repeat(64))), []);
    }

    #[test]
    fn a_name_that_an_export_made_harmless_reads_back() {
        let name = formula::neutralise("custom.k;=1+1").into_owned();
        assert_eq!(name, "custom.k;'=1+1");
        let columns = read_columns(ImportKind::Assets, &["code".to_owned(), name]).unwrap();
        assert_eq!(columns[1], Column::Custom("k;=1+1".to_owned()));
    }

    #[test]
    fn the_columns_of_custom_fields_read_back() {
        for (key, is_text) in
            [("serial", true), ("seats", false), ("a:json", true), ("a:json", false)]
        {
            let column = Column::of_custom(key, is_text);
            let read = Column::parse(ImportKind::Assets, &column).unwrap();
            let is_json = !is_text || key.ends_with(JSON);
            let expected =
                if is_json { Column::CustomJson(key.into()) } else { Column::Custom(key.into()) };
            assert_eq!(read, expected, "{column}");
        }
    }
}
