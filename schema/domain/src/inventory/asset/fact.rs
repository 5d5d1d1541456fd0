//! Facts: the attribute values of an asset, each with its source and the time since which the value is known.
//!
//! A derived fact is never stored. It is computed from stored facts and the time of the request.

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

/// Maximum number of attributes in one patch. The limit bounds the cost of suggestions: each unknown name is compared
/// with all names of the registry.
const MAX_CHANGES: usize = 200;

text_enum! {
    /// Source of a fact: how the fact's value was obtained.
    FactSource in "asset"."sources" {
        /// A caller set the value with a mutation.
        Declared = "DECLARED",
        /// An import set the value.
        Imported = "IMPORTED",
        /// Reserved for values that a health check measures; the server does not set this source yet.
        Probed = "PROBED",
        /// The value is computed from other facts.
        Derived = "DERIVED",
    }
}

/// A fact: an attribute value of an asset, with its source. Requires `ASSET_READ`.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
#[graphql(directive = requires::apply(Permission::AssetRead))]
pub struct Fact {
    /// The attribute's key, e.g. `os_name`.
    pub key: String,
    /// The attribute's value, as JSON of the attribute's type.
    pub value: Value,
    /// Source of the current value.
    pub source: FactSource,
    /// Time since which the current value is known: when the value was last changed. For a derived fact, the time of
    /// the newest fact that it is computed from.
    pub observed_at: DateTime<Utc>,
}

/// Source and observation time of each attribute of an asset, by the attribute's key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sources(BTreeMap<String, Source>);

/// Source and observation time of one attribute, stored as `["IMPORTED", milliseconds since 1970]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Source(FactSource, #[serde(with = "chrono::serde::ts_milliseconds")] DateTime<Utc>);

impl Sources {
    /// Parses the value of the column `asset.sources`.
    ///
    /// # Errors
    /// `Corrupt` if the value has another shape, for example because a newer version wrote it.
    pub(super) fn from_column(value: Value) -> Result<Self> {
        serde_json::from_value(value)
            .map_err(|_| Error::Corrupt { table: "asset", column: "sources" })
    }

    fn set(&mut self, key: &str, provenance: Provenance) {
        self.0.insert(key.to_owned(), Source(provenance.source, provenance.at.trunc_subsecs(3)));
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

/// Provenance of the facts that a patch writes: their source and observation time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Provenance {
    /// Source of the written facts.
    pub(crate) source: FactSource,
    /// Time at which the facts were observed.
    pub(crate) at: DateTime<Utc>,
}

impl Provenance {
    /// Returns the provenance of facts that a caller sets with a mutation at this time.
    pub(super) const fn declared(at: DateTime<Utc>) -> Self {
        Self { source: FactSource::Declared, at }
    }
}

impl Asset {
    /// Returns the asset's stored and derived facts at `now`, ordered by key.
    pub fn facts(&self, now: DateTime<Utc>) -> Vec<Fact> {
        let values = self.attributes.as_object().into_iter().flatten();
        let mut facts: Vec<Fact> = values
            .map(|(key, value)| {
                let (source, observed_at) = self.source_of(key);
                Fact { key: key.clone(), value: value.clone(), source, observed_at }
            })
            .collect();
        facts.extend(self.derived(now));
        facts.sort_by(|left, right| left.key.cmp(&right.key));
        facts
    }

    /// Returns the derived fact `os_supported`. `None` if the attribute has a stored value, or if the end-of-life table
    /// does not list the operating system's release.
    fn derived(&self, now: DateTime<Utc>) -> Option<Fact> {
        let text = |key| self.attributes.get(key).and_then(Value::as_str);
        let is_set = self.attributes.get(OS_SUPPORTED).is_some();
        let release = end_of_life::find_release(is_set, text("os_name"), text("os_version"))?;
        // A derived fact is as recent as the newest fact that it is computed from.
        let source_keys = ["os_name", "os_version"].into_iter().filter(|key| text(key).is_some());
        let observed_at = source_keys.map(|key| self.source_of(key).1).max()?;
        Some(Fact {
            key: OS_SUPPORTED.to_owned(),
            value: json!(release.is_supported_at(now)),
            source: FactSource::Derived,
            observed_at,
        })
    }

    fn source_of(&self, key: &str) -> (FactSource, DateTime<Utc>) {
        // Earlier versions did not store sources. Values without a source count as declared.
        let default = Source(FactSource::Declared, self.updated_at);
        let Source(source, at) = self.sources.0.get(key).copied().unwrap_or(default);
        (source, at)
    }
}

/// Returns the attributes and their sources after merging the changes by key. Translates aliases to keys and normalises
/// values; the value `null` removes a key. An unchanged value keeps its source. Adds one error to `faults` for each
/// invalid name or value.
pub(super) fn merge(
    current: (&Value, &Sources),
    changes: &Value,
    provenance: Provenance,
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
    if changes.len() > MAX_CHANGES {
        let message = format!("has {} keys, at most {MAX_CHANGES} are allowed", changes.len());
        faults.push(FieldError::new("attributes", message));
        return (Value::Object(values), sources);
    }
    let mut given_keys = BTreeSet::new();
    for (name, value) in changes {
        let path = format!("attributes.{name}");
        let attribute = match attribute::find(name, &path) {
            Ok(attribute) => attribute,
            // Earlier versions accepted unknown keys. Such a key can still be removed.
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
        if !given_keys.insert(key) {
            faults.push(FieldError::new(
                path,
                format!("is an alias of {key}, which is also given: keep only one of the two"),
            ));
            continue;
        }
        if value.is_null() {
            // Earlier versions may have stored the value under the alias.
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
                sources.set(key, provenance);
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
        for (current, change, stored) in [
            (json!({"free": 1}), json!({"free": null}), json!({})),
            (json!({"disk_encryption": "yes"}), json!({"disk_encryption": null}), json!({})),
            (
                json!({"disk_encryption": "yes", "disk_encrypted": true}),
                json!({"disk_encrypted": null}),
                json!({"disk_encryption": "yes"}),
            ),
        ] {
            assert_eq!(merged(&current, &change), (stored, vec![]), "{change}");
        }
        assert_eq!(merged(&json!({}), &json!({"free": null})).1, ["attributes.free"]);
    }

    #[test]
    fn what_follows_is_as_old_as_the_last_of_what_it_follows_from() {
        let mut asset = Draft::new(AssetType::Host, at(0)).asset;
        for (hour, attributes) in
            [(1, json!({"os_name": "Debian"})), (5, json!({"os_version": "12"}))]
        {
            let current = (&asset.attributes, &asset.sources);
            let merged =
                merge(current, &attributes, Provenance::declared(at(hour)), &mut Vec::new());
            (asset.attributes, asset.sources) = merged;
        }
        let facts = asset.facts(at(6));
        let derived = facts.iter().find(|fact| fact.key == OS_SUPPORTED).unwrap();
        assert_eq!((derived.source, derived.observed_at), (FactSource::Derived, at(5)));
    }

    #[test]
    fn sources_read_back_and_others_are_corrupt() {
        let stored = json!({"os_name": ["IMPORTED", 1_780_000_000_125_i64]});
        let sources = Sources::from_column(stored.clone()).unwrap();
        assert_eq!(serde_json::to_value(&sources).unwrap(), stored);
        for other in
            [json!([]), json!({"os_name": ["GUESSED", 1]}), json!({"os_name": ["IMPORTED"]})]
        {
            let read = Sources::from_column(other);
            assert!(matches!(read, Err(Error::Corrupt { table: "asset", column: "sources" })));
        }
    }
}
