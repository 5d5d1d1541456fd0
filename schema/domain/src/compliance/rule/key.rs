//! What a rule can read of an asset, by name: `asset.environment`, `owner.mfa_enabled`, `attr.disk_encrypted`.
//!
//! A key is a small number, so that evaluating looks nothing up by text; the names are what changes are noted by.

use std::{fmt, sync::LazyLock};

use super::kind::{Kind, Type};
use crate::inventory::attribute::{Attribute, AttributeType};

/// Something that a rule can read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(u8);

struct Named {
    root: &'static str,
    /// With its root.
    name: String,
    holds: Type,
}

/// What an asset has beside its attributes, and its owner.
const FIXED: [(&str, &str, Type); 12] = [
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

static KEYS: LazyLock<Vec<Named>> = LazyLock::new(|| {
    let fixed = FIXED.iter().map(|(root, field, holds)| (*root, *field, *holds));
    let attributes =
        Attribute::all().iter().map(|known| ("attr", known.key.as_str(), type_of(known)));
    fixed
        .chain(attributes)
        .map(|(root, field, holds)| Named { root, name: format!("{root}.{field}"), holds })
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

impl Key {
    pub(super) const TYPE: Self = Self(0);
    pub(super) const ENVIRONMENT: Self = Self(1);
    pub(super) const DESCRIPTION: Self = Self(7);
    pub(super) const TAGS: Self = Self(8);

    /// The attribute at this index of the registry.
    pub(super) fn of_attribute(index: usize) -> Self {
        Self::of_index(FIXED.len() + index).expect("the registry's places are keys")
    }

    /// The one of a field of a root.
    pub(super) fn of_field(root: &str, field: &str) -> Option<Self> {
        let is_it = |known: &Named| known.root == root && known.field() == field;
        Self::of_index(KEYS.iter().position(is_it)?)
    }

    /// The one at this index among all.
    pub(super) fn of_index(index: usize) -> Option<Self> {
        (index < KEYS.len()).then(|| u8::try_from(index).ok().map(Self)).flatten()
    }

    /// How many there are.
    pub(super) fn count() -> usize {
        KEYS.len()
    }

    /// Its index among all.
    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The fields of a root.
    pub(super) fn fields(root: &str) -> impl Iterator<Item = &'static str> {
        KEYS.iter().filter(move |known| known.root == root).map(Named::field)
    }

    /// Its name with its root, e.g. `attr.disk_encrypted`.
    pub fn name(self) -> &'static str {
        &self.named().name
    }

    /// Its name without its root.
    pub(super) fn field(self) -> &'static str {
        self.named().field()
    }

    /// What its values are.
    pub(super) fn holds(self) -> Type {
        self.named().holds
    }

    /// Why a rule that reads it cannot be judged where there is none.
    pub(super) fn absence(self) -> String {
        match self.named().root {
            "owner" => "it has no owner".to_owned(),
            _ => format!("{} is not known", self.field()),
        }
    }

    fn named(self) -> &'static Named {
        &KEYS[self.index()]
    }
}

impl Named {
    fn field(&self) -> &str {
        &self.name[self.root.len() + 1..]
    }
}

impl fmt::Debug for Key {
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
            (Key::TYPE, "asset.type"),
            (Key::ENVIRONMENT, "asset.environment"),
            (Key::DESCRIPTION, "asset.description"),
            (Key::TAGS, "asset.tags"),
        ] {
            assert_eq!(key.name(), name);
        }
        for (index, attribute) in Attribute::all().iter().enumerate() {
            assert_eq!(Key::of_attribute(index).field(), attribute.key);
        }
    }
}
