//! What is known of an asset, and how we know it.
//!
//! What is derived is never stored: it follows from the facts that are, and from the day on which it is asked.

use std::collections::{BTreeMap, BTreeSet};

use async_graphql::SimpleObject;
use bytes::BytesMut;
use chrono::{DateTime, SubsecRound, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_postgres::types::{IsNull, Json, ToSql, Type, to_sql_checked};

use super::Asset;
use crate::{
    access::{directive::requires, permission::Permission},
    base::{
        error::{Error, FieldError, Result},
        text::text_enum,
    },
    inventory::{
        attribute::{self, Attribute, OS_SUPPORTED},
        end_of_life,
    },
};

/// Attributes that one patch may name; each unknown one is compared with all that are known.
const MOST_CHANGES: usize = 200;

text_enum! {
    /// How we know something.
    FactSource in "asset"."sources" {
        /// Somebody said so over the API.
        Declared = "DECLARED",
        /// A file said so.
        Imported = "IMPORTED",
        /// We looked.
        Probed = "PROBED",
        /// It follows from other facts.
        Derived = "DERIVED",
    }
}

/// Something that is known of an asset. Takes `ASSET_READ`.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
#[graphql(directive = requires::apply(Permission::AssetRead))]
pub struct Fact {
    /// The attribute's key.
    pub key: String,
    /// Its value.
    pub value: Value,
    /// How we know it.
    pub source: FactSource,
    /// Since when this value is known.
    pub observed_at: DateTime<Utc>,
}

/// How we know each attribute of an asset, and since when, by its key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sources(BTreeMap<String, Source>);

/// Kept as `["IMPORTED", milliseconds]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Source(FactSource, #[serde(with = "chrono::serde::ts_milliseconds")] DateTime<Utc>);

impl Sources {
    /// What a column of a row holds.
    ///
    /// # Errors
    /// `Corrupt` for what a newer version wrote.
    pub(super) fn from_column(value: Value) -> Result<Self> {
        serde_json::from_value(value)
            .map_err(|_| Error::Corrupt { table: "asset", column: "sources" })
    }

    fn note(&mut self, key: &str, known: Provenance) {
        self.0.insert(key.to_owned(), Source(known.source, known.at.trunc_subsecs(3)));
    }
}

impl ToSql for Sources {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        Json(self).to_sql(ty, out)
    }

    fn accepts(ty: &Type) -> bool {
        <Json<Self> as ToSql>::accepts(ty)
    }

    to_sql_checked!();
}

/// Whoever tells facts now, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Provenance {
    /// How we know them.
    pub(crate) source: FactSource,
    /// When.
    pub(crate) at: DateTime<Utc>,
}

impl Provenance {
    /// By somebody over the API.
    pub(super) const fn declared(at: DateTime<Utc>) -> Self {
        Self { source: FactSource::Declared, at }
    }
}

impl Asset {
    /// What is known of it as of `now`, by key; with what follows from it.
    pub fn facts(&self, now: DateTime<Utc>) -> Vec<Fact> {
        let values = self.attributes.as_object().into_iter().flatten();
        let mut facts: Vec<Fact> = values
            .map(|(key, value)| {
                let (source, observed_at) = self.known(key);
                Fact { key: key.clone(), value: value.clone(), source, observed_at }
            })
            .collect();
        facts.extend(self.derived(now));
        facts.sort_by(|one, other| one.key.cmp(&other.key));
        facts
    }

    /// Whether its system gets security updates, where nobody says and its name and version are known.
    fn derived(&self, now: DateTime<Utc>) -> Option<Fact> {
        let text = |key| self.attributes.get(key).and_then(Value::as_str);
        let is_said = self.attributes.get(OS_SUPPORTED).is_some();
        let system = end_of_life::deciding(is_said, text("os_name"), text("os_version"))?;
        // As old as the last that was heard of what decides.
        let deciding = ["os_name", "os_version"].into_iter().filter(|key| text(key).is_some());
        let observed_at = deciding.map(|key| self.known(key).1).max()?;
        Some(Fact {
            key: OS_SUPPORTED.to_owned(),
            value: json!(system.is_supported_at(now)),
            source: FactSource::Derived,
            observed_at,
        })
    }

    fn known(&self, key: &str) -> (FactSource, DateTime<Utc>) {
        // What was known before we kept how, somebody said.
        let before = Source(FactSource::Declared, self.updated_at);
        let Source(source, at) = self.sources.0.get(key).copied().unwrap_or(before);
        (source, at)
    }
}

/// Attributes and their sources after merging the changes by key: names translated, values in their one form, `null`
/// removing a key. What is unchanged keeps its source.
pub(super) fn merge(
    current: (&Value, &Sources),
    changes: &Value,
    known: Provenance,
    faults: &mut Vec<FieldError>,
) -> (Value, Sources) {
    let mut values = current.0.as_object().cloned().unwrap_or_default();
    let mut sources = current.1.clone();
    let Value::Object(changes) = changes else {
        faults.push(FieldError::new(
            "attributes",
            "must be an object, such as {\"os_name\": \"Debian 12\"}",
        ));
        return (Value::Object(values), sources);
    };
    if changes.len() > MOST_CHANGES {
        let message =
            format!("has {} keys, at most {MOST_CHANGES} are read at a time", changes.len());
        faults.push(FieldError::new("attributes", message));
        return (Value::Object(values), sources);
    }
    let mut given = BTreeSet::new();
    for (name, value) in changes {
        let path = format!("attributes.{name}");
        let attribute = match attribute::find(name, &path) {
            Ok(attribute) => attribute,
            // What an earlier version let in can still be removed.
            Err(_) if value.is_null() && values.remove(name).is_some() => {
                sources.0.remove(name);
                continue;
            }
            Err(fault) => {
                faults.push(fault);
                continue;
            }
        };
        let key = attribute.key.as_str();
        if !given.insert(key) {
            faults.push(FieldError::new(
                path,
                format!("is given twice: it is another name of {key}"),
            ));
            continue;
        }
        if value.is_null() {
            // Under its other name an earlier version may have let it in.
            for name in [key, name] {
                values.remove(name);
                sources.0.remove(name);
            }
            continue;
        }
        match normalised(attribute, name, value) {
            Ok(value) if values.get(key) == Some(&value) => {}
            Ok(value) => {
                values.insert(key.to_owned(), value);
                sources.note(key, known);
            }
            Err(message) => faults.push(FieldError::new(path, message)),
        }
    }
    (Value::Object(values), sources)
}

fn normalised(attribute: &Attribute, name: &str, value: &Value) -> Result<Value, String> {
    attribute.normalise(name.trim(), value)
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::inventory::asset::{AssetType, Draft};

    fn at(hours: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::hours(hours)
    }

    fn merged(current: &Value, changes: &Value) -> (Value, Vec<String>) {
        let mut faults = Vec::new();
        let current = (current, &Sources::default());
        let (values, _) = merge(current, changes, Provenance::declared(at(0)), &mut faults);
        (values, faults.into_iter().map(|fault| fault.path).collect())
    }

    #[test]
    fn a_fact_is_not_removed_and_set_at_once() {
        let current = json!({"disk_encrypted": true});
        let (_, faults) =
            merged(&current, &json!({"disk_encrypted": null, "disk_encryption": true}));
        assert_eq!(faults, ["attributes.disk_encryption"]);
    }

    #[test]
    fn what_an_earlier_version_let_in_can_be_removed() {
        for (current, change, kept) in [
            (json!({"free": 1}), json!({"free": null}), json!({})),
            (json!({"disk_encryption": "yes"}), json!({"disk_encryption": null}), json!({})),
            (
                json!({"disk_encryption": "yes", "disk_encrypted": true}),
                json!({"disk_encrypted": null}),
                json!({"disk_encryption": "yes"}),
            ),
        ] {
            assert_eq!(merged(&current, &change), (kept, vec![]), "{change}");
        }
        assert_eq!(merged(&json!({}), &json!({"free": null})).1, ["attributes.free"]);
    }

    #[test]
    fn what_follows_is_as_old_as_the_last_of_what_it_follows_from() {
        let mut asset = Draft::new(AssetType::Host, at(0)).asset;
        for (hour, told) in [(1, json!({"os_name": "Debian"})), (5, json!({"os_version": "12"}))] {
            let current = (&asset.attributes, &asset.sources);
            let merged = merge(current, &told, Provenance::declared(at(hour)), &mut Vec::new());
            (asset.attributes, asset.sources) = merged;
        }
        let facts = asset.facts(at(6));
        let derived = facts.iter().find(|fact| fact.key == OS_SUPPORTED).unwrap();
        assert_eq!((derived.source, derived.observed_at), (FactSource::Derived, at(5)));
    }

    #[test]
    fn sources_read_back_and_others_are_corrupt() {
        let kept = json!({"os_name": ["IMPORTED", 1_780_000_000_125_i64]});
        let sources = Sources::from_column(kept.clone()).unwrap();
        assert_eq!(serde_json::to_value(&sources).unwrap(), kept);
        for other in
            [json!([]), json!({"os_name": ["GUESSED", 1]}), json!({"os_name": ["IMPORTED"]})]
        {
            let read = Sources::from_column(other);
            assert!(matches!(read, Err(Error::Corrupt { table: "asset", column: "sources" })));
        }
    }
}
