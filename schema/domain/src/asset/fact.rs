//! What is known of an asset, and how we know it.
//!
//! What is derived is never stored: it follows from the facts that are, and from the day on which it is asked.

use async_graphql::SimpleObject;
use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::Asset;
use crate::{
    attribute::{self, Attribute, OS_SUPPORTED},
    directive::requires,
    end_of_life,
    error::Fault,
    permission::Permission,
    text::text_enum,
};

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

/// Whoever tells facts now, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    /// How we know them.
    pub(crate) source: FactSource,
    /// When.
    pub(crate) at: DateTime<Utc>,
}

impl Known {
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
        if self.attributes.get(OS_SUPPORTED).is_some() {
            return None;
        }
        let system = end_of_life::of(text("os_name")?, text("os_version"))?;
        let (_, observed_at) = self.known("os_name");
        Some(Fact {
            key: OS_SUPPORTED.to_owned(),
            value: json!(system.is_supported_at(now)),
            source: FactSource::Derived,
            observed_at,
        })
    }

    fn known(&self, key: &str) -> (FactSource, DateTime<Utc>) {
        let entry = self.sources.get(key);
        let part = |place: usize| entry.and_then(|entry| entry.get(place));
        let source =
            part(0).and_then(Value::as_str).and_then(|text| FactSource::from_column(text).ok());
        let at = part(1).and_then(Value::as_i64).and_then(DateTime::from_timestamp_millis);
        (source.unwrap_or(FactSource::Declared), at.unwrap_or(self.updated_at))
    }
}

/// Attributes and their sources after merging the changes by key: names translated, values in their one form, `null`
/// removing a key. What is unchanged keeps its source.
pub(super) fn merge(
    current: (&Value, &Value),
    changes: &Value,
    known: Known,
    faults: &mut Vec<Fault>,
) -> (Value, Value) {
    let object = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let (mut values, mut sources) = (object(current.0), object(current.1));
    let Value::Object(changes) = changes else {
        faults.push(Fault::new(
            "attributes",
            "must be an object, such as {\"os_name\": \"Debian 12\"}",
        ));
        return (Value::Object(values), Value::Object(sources));
    };
    let mut given: Map<String, Value> = Map::new();
    for (name, value) in changes {
        let path = format!("attributes.{name}");
        // What an earlier version let in can still be removed.
        if value.is_null() && values.contains_key(name) {
            values.remove(name);
            sources.remove(name);
            continue;
        }
        let attribute = match attribute::find(name, &path) {
            Ok(attribute) => attribute,
            Err(fault) => {
                faults.push(fault);
                continue;
            }
        };
        let key = attribute.key.as_str();
        if given.insert(key.to_owned(), Value::Null).is_some() {
            faults.push(Fault::new(path, format!("is given twice: it is another name of {key}")));
            continue;
        }
        if value.is_null() {
            values.remove(key);
            sources.remove(key);
            continue;
        }
        match normalised(attribute, name, value) {
            Ok(value) if values.get(key) == Some(&value) => {}
            Ok(value) => {
                values.insert(key.to_owned(), value);
                sources.insert(
                    key.to_owned(),
                    json!([known.source.as_str(), known.at.timestamp_millis()]),
                );
            }
            Err(message) => faults.push(Fault::new(path, message)),
        }
    }
    (Value::Object(values), Value::Object(sources))
}

fn normalised(attribute: &Attribute, name: &str, value: &Value) -> Result<Value, String> {
    attribute.normalise(name.trim(), value)
}
