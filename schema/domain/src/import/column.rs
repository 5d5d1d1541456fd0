//! The columns that a file may have: what each is called, and what was probably meant by another name.

use std::collections::HashMap;

use super::ImportKind;
use crate::{
    attribute::{self, Attribute},
    error::{Error, Fault, Result},
    nearest::nearest,
};

/// Columns of a file at most.
const MOST: usize = 500;
/// What a custom field whose value is not a text ends in.
const JSON: &str = ":json";

/// What the cells of a column say.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Column {
    /// A field of an asset or a dependency, by the name of its column.
    Field(&'static str),
    /// An attribute, by its key and by the name that was used.
    Attribute(&'static str, String),
    /// A custom field whose value is the cell's text.
    Custom(String),
    /// A custom field whose value is what the cell's JSON says.
    CustomJson(String),
}

/// A column's name, and what else it may be called (as in the API).
type Names = (&'static str, &'static [&'static str]);

const ASSET: &[Names] = &[
    ("code", &["short_code"]),
    ("external_id", &["externalid"]),
    ("name", &[]),
    ("asset_type", &["type", "assettype"]),
    ("environment", &[]),
    ("lifecycle_state", &["lifecyclestate"]),
    ("location", &[]),
    ("description", &[]),
    ("owner", &["owner_email"]),
    ("tags", &[]),
];

const DEPENDENCY: &[Names] = &[
    ("source_code", &["sourcecode"]),
    ("source_external_id", &["sourceexternalid"]),
    ("target_code", &["targetcode"]),
    ("target_external_id", &["targetexternalid"]),
    ("kind", &[]),
    ("criticality", &[]),
];

const fn fields(kind: ImportKind) -> &'static [Names] {
    match kind {
        ImportKind::Assets => ASSET,
        ImportKind::Dependencies => DEPENDENCY,
    }
}

impl Column {
    /// What is called so.
    ///
    /// # Errors
    /// A fault at the name, which suggests the nearest.
    pub(super) fn parse(kind: ImportKind, name: &str) -> Result<Self, Fault> {
        let name = name.trim();
        if kind == ImportKind::Assets {
            if let Some(key) = strip(name, &["attributes.", "attribute."]) {
                let found = attribute::find(key, name).map_err(|fault| Fault {
                    suggestion: fault.suggestion.map(|key| format!("attributes.{key}")),
                    ..fault
                })?;
                return Ok(Self::Attribute(found.key.as_str(), key.trim().to_owned()));
            }
            if let Some(key) = strip(name, &["custom.", "custom_fields.", "customfields."]) {
                let key = key.trim();
                return Ok(match key.strip_suffix(JSON) {
                    Some(key) => Self::CustomJson(key.to_owned()),
                    None => Self::Custom(key.to_owned()),
                });
            }
        }
        let folded = name.to_lowercase().replace([' ', '-'], "_");
        let known = fields(kind)
            .iter()
            .find(|(field, others)| *field == folded || others.contains(&folded.as_str()));
        match known {
            Some((field, _)) => Ok(Self::Field(field)),
            None => Err(Fault {
                suggestion: suggestion(kind, &folded),
                ..Fault::new(name, unknown(kind, name))
            }),
        }
    }

    /// The column that an exported file has for a custom field with this value.
    pub(crate) fn of_custom(key: &str, is_text: bool) -> String {
        let suffix = if is_text && !key.ends_with(JSON) { "" } else { JSON };
        format!("custom.{key}{suffix}")
    }

    /// What it is about: no two columns of a file are about the same.
    fn subject(&self) -> String {
        match self {
            Self::Field(name) => (*name).to_owned(),
            Self::Attribute(key, _) => format!("attributes.{key}"),
            Self::Custom(key) => Self::of_custom(key, true),
            Self::CustomJson(key) => Self::of_custom(key, false),
        }
    }
}

fn strip<'a>(name: &'a str, prefixes: &[&str]) -> Option<&'a str> {
    prefixes.iter().find_map(|prefix| {
        let head = name.get(..prefix.len())?;
        head.eq_ignore_ascii_case(prefix).then(|| &name[prefix.len()..])
    })
}

fn unknown(kind: ImportKind, name: &str) -> String {
    if name.is_empty() {
        return "a column has no name".to_owned();
    }
    let names: Vec<_> = fields(kind).iter().map(|(field, _)| *field).collect();
    let names = names.join(", ");
    match kind {
        ImportKind::Assets => format!(
            "there is no column {name:?}: there are {names}, attributes.<key> and custom.<name>"
        ),
        ImportKind::Dependencies => format!("there is no column {name:?}: there are {names}"),
    }
}

/// The column most like it, or the attribute that forgot its prefix.
fn suggestion(kind: ImportKind, folded: &str) -> Option<String> {
    if kind == ImportKind::Assets
        && let Ok(attribute) = attribute::find(folded, "")
    {
        return Some(format!("attributes.{}", attribute.key));
    }
    let near = nearest(folded, fields(kind).iter().map(|(field, _)| *field));
    near.map(str::to_owned).or_else(|| {
        let key = (kind == ImportKind::Assets).then(|| attribute::suggestion(folded))??;
        Some(format!(
            "attributes.{}",
            Attribute::of_key(&key).map_or(key.as_str(), |known| &known.key)
        ))
    })
}

/// Reads a header.
///
/// # Errors
/// `Invalid` with a fault for each column that is unknown or there twice, and where none says which asset is meant.
pub fn check_columns(kind: ImportKind, columns: &[String]) -> Result<()> {
    read_columns(kind, columns).map(drop)
}

pub(super) fn read_columns(kind: ImportKind, names: &[String]) -> Result<Vec<Column>> {
    if names.len() > MOST {
        let message = format!("has {} columns, at most {MOST} are read", names.len());
        return Err(Error::invalid("header", message));
    }
    let mut faults = Vec::new();
    let mut columns = Vec::with_capacity(names.len());
    let mut seen: HashMap<String, &str> = HashMap::new();
    for name in names {
        match Column::parse(kind, name) {
            Ok(column) => {
                if let Some(first) = seen.insert(column.subject(), name.trim()) {
                    let message = if first == name.trim() {
                        "is there twice".to_owned()
                    } else {
                        format!("says the same as the column {first:?}")
                    };
                    faults.push(Fault::new(name.trim(), message));
                }
                columns.push(column);
            }
            Err(fault) => faults.push(fault),
        }
    }
    let has = |field: &str| seen.contains_key(field);
    // A wrong name may be the one that is missing: it is enough to hear of that.
    if faults.is_empty() {
        match kind {
            ImportKind::Assets => {
                if !has("external_id") && !has("code") && !has("name") {
                    let message = "no column says which asset is meant: external_id, code or name";
                    faults.push(Fault::new("header", message));
                }
            }
            ImportKind::Dependencies => {
                for side in ["source", "target"] {
                    if !has(&format!("{side}_external_id")) && !has(&format!("{side}_code")) {
                        let message = format!(
                            "no column says which asset is the {side}: {side}_external_id or {side}_code"
                        );
                        faults.push(Fault::new("header", message));
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
        match check_columns(kind, &columns) {
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
