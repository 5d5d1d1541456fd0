//! Names of the facts that a rule can read: `asset.environment`, `owner.mfa_enabled`, `attr.disk_encrypted`.
//!
//! A name is a root, a dot and a field. The root is the top-level variable of a condition: `asset`, `owner` or `attr`.
//!
//! A `FactKey` is a small number, so an evaluation needs no string lookups. Changes of facts are recorded by name,
//! because numbers differ between server versions.

use std::{fmt, sync::LazyLock};

use super::kind::{Kind, Type};
use crate::inventory::attribute::{Attribute, AttributeType};

/// A fact that a rule can read, as an index into the list of all facts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FactKey(u8);

struct FactDefinition {
    root: &'static str,
    /// The full name with its root, e.g. `attr.os_name`.
    name: String,
    value_type: Type,
}

/// Facts of an asset and of its owner, except attributes. The order determines the indexes of the constants below.
const ASSET_AND_OWNER_FACTS: [(&str, &str, Type); 12] = [
    ("asset", "type", Type::One(Kind::Text)),
    ("asset", "environment", Type::One(Kind::Text)),
    ("asset", "lifecycle_state", Type::One(Kind::Text)),
    ("asset", "name", Type::One(Kind::Text)),
    ("asset", "code", Type::One(Kind::Text)),
    ("asset", "external_id", Type::One(Kind::Text)),
    ("asset", "location", Type::One(Kind::Text)),
    ("asset", "description", Type::One(Kind::Text)),
    ("asset", "tags", Type::List(Kind::Text)),
    ("owner", "id", Type::One(Kind::Text)),
    ("owner", "mfa_enabled", Type::One(Kind::Bool)),
    ("owner", "active", Type::One(Kind::Bool)),
];

static FACTS: LazyLock<Vec<FactDefinition>> = LazyLock::new(|| {
    let asset_and_owner =
        ASSET_AND_OWNER_FACTS.iter().map(|(root, field, value_type)| (*root, *field, *value_type));
    let attributes = Attribute::all()
        .iter()
        .map(|attribute| ("attr", attribute.key.as_str(), type_of(attribute)));
    asset_and_owner
        .chain(attributes)
        .map(|(root, field, value_type)| FactDefinition {
            root,
            name: format!("{root}.{field}"),
            value_type,
        })
        .collect()
});

fn type_of(attribute: &Attribute) -> Type {
    match attribute.attribute_type {
        AttributeType::Boolean => Type::One(Kind::Bool),
        AttributeType::Integer => Type::One(Kind::Int),
        AttributeType::DateTime => Type::One(Kind::Time),
        AttributeType::Text => Type::One(Kind::Text),
        AttributeType::IntegerList => Type::List(Kind::Int),
        AttributeType::TextList => Type::List(Kind::Text),
    }
}

impl FactKey {
    pub(super) const TYPE: Self = Self(0);
    pub(super) const ENVIRONMENT: Self = Self(1);
    pub(super) const DESCRIPTION: Self = Self(7);
    pub(super) const TAGS: Self = Self(8);

    /// Returns the key of the attribute at this index of the attribute registry.
    pub(super) fn of_attribute(index: usize) -> Self {
        Self::of_index(ASSET_AND_OWNER_FACTS.len() + index)
            .expect("every attribute of the registry has a key")
    }

    /// Returns the key of a root's field, such as `attr` and `disk_encrypted`; `None` if it does not exist.
    pub(super) fn of_field(root: &str, field: &str) -> Option<Self> {
        let is_field =
            |definition: &FactDefinition| definition.root == root && definition.field() == field;
        Self::of_index(FACTS.iter().position(is_field)?)
    }

    /// Returns the key with this index; `None` if the index is out of range.
    pub(super) fn of_index(index: usize) -> Option<Self> {
        (index < FACTS.len()).then(|| u8::try_from(index).ok().map(Self)).flatten()
    }

    /// Returns the number of keys.
    pub(super) fn count() -> usize {
        FACTS.len()
    }

    /// Returns the key's index among all keys.
    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Returns the names of all fields of a root, such as `asset`.
    pub(super) fn fields(root: &str) -> impl Iterator<Item = &'static str> {
        FACTS.iter().filter(move |definition| definition.root == root).map(FactDefinition::field)
    }

    /// Returns the full name, e.g. `attr.disk_encrypted`.
    pub fn name(self) -> &'static str {
        &self.definition().name
    }

    /// Returns the name of the field, without the root.
    pub(super) fn field(self) -> &'static str {
        self.definition().field()
    }

    /// Returns the type of the fact's value.
    pub(super) fn value_type(self) -> Type {
        self.definition().value_type
    }

    /// Returns the reason for a verdict `NotAssessed` if this fact is missing.
    pub(super) fn missing_reason(self) -> String {
        match self.definition().root {
            "owner" => "the asset has no owner".to_owned(),
            _ => format!("{} has no value", self.field()),
        }
    }

    fn definition(self) -> &'static FactDefinition {
        &FACTS[self.index()]
    }
}

impl FactDefinition {
    fn field(&self) -> &str {
        &self.name[self.root.len() + 1..]
    }
}

impl fmt::Debug for FactKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_with_names_of_their_own_are_what_they_are_called() {
        for (key, name) in [
            (FactKey::TYPE, "asset.type"),
            (FactKey::ENVIRONMENT, "asset.environment"),
            (FactKey::DESCRIPTION, "asset.description"),
            (FactKey::TAGS, "asset.tags"),
        ] {
            assert_eq!(key.name(), name);
        }
        for (index, attribute) in Attribute::all().iter().enumerate() {
            assert_eq!(FactKey::of_attribute(index).field(), attribute.key);
        }
    }
}
