//! Which assets are asked for, and in which order.

use async_graphql::{Enum, InputObject};
use unicode_normalization::UnicodeNormalization;

use super::{AssetType, Environment, LifecycleState};
use crate::base::{
    entity::{TagId, UserId},
    error::{Error, Result},
    listing::{Listing, Order},
};

/// Which assets to list; what is given must all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, InputObject)]
pub struct AssetFilter {
    /// Of one of these types.
    #[graphql(name = "type")]
    pub asset_type: Option<Vec<AssetType>>,
    /// Used for one of these.
    pub environment: Option<Vec<Environment>>,
    /// In one of these states.
    pub lifecycle_state: Option<Vec<LifecycleState>>,
    /// This user answers for it.
    pub owner: Option<UserId>,
    /// It carries this tag.
    pub tag: Option<TagId>,
    /// Name or code contain this text, whatever its case; up to 255 characters.
    pub text: Option<String>,
}

/// What assets are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub enum AssetOrderField {
    /// When they were created.
    CreatedAt,
    /// When they were last changed.
    UpdatedAt,
    /// By name.
    Name,
    /// By short code.
    Code,
}

/// Which way a list goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub enum OrderDirection {
    /// Smallest or oldest first.
    Asc,
    /// Largest or newest first.
    Desc,
}

/// How assets are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, InputObject)]
pub struct AssetOrder {
    /// By what.
    pub field: AssetOrderField,
    /// Which way.
    #[graphql(default_with = "OrderDirection::Asc")]
    pub direction: OrderDirection,
}

impl Default for AssetOrder {
    fn default() -> Self {
        Self { field: AssetOrderField::CreatedAt, direction: OrderDirection::Desc }
    }
}

impl AssetOrder {
    pub(super) const fn sql(self) -> Order {
        let column = match self.field {
            AssetOrderField::CreatedAt => None, // Ids are made in the order of time.
            AssetOrderField::UpdatedAt => Some(("updated_at", "timestamptz")),
            AssetOrderField::Name => Some(("name", "text")),
            AssetOrderField::Code => Some(("code", "text")),
        };
        Order { column, id: "id", descending: matches!(self.direction, OrderDirection::Desc) }
    }
}
/// A filter's values in the form that a statement binds.
pub(super) struct FilterValues<'a> {
    types: Option<Vec<&'static str>>,
    environments: Option<Vec<&'static str>>,
    states: Option<Vec<&'static str>>,
    owner: Option<&'a UserId>,
    tag: Option<&'a TagId>,
    pattern: Option<String>,
}

impl<'a> FilterValues<'a> {
    pub(super) fn of(filter: &'a AssetFilter) -> Result<Self> {
        let text = filter.text.as_deref().map(str::trim).filter(|text| !text.is_empty());
        // Composed, as names are stored.
        let text: Option<String> = text.map(|text| text.nfc().collect());
        if text.as_ref().is_some_and(|text| text.chars().count() > 255) {
            return Err(Error::invalid("filter.text", "has more than 255 characters"));
        }
        if text.as_ref().is_some_and(|text| text.contains('\0')) {
            return Err(Error::invalid("filter.text", "holds the control character U+0000"));
        }
        Ok(Self {
            types: filter
                .asset_type
                .as_ref()
                .map(|all| all.iter().map(|one| one.as_str()).collect()),
            environments: filter
                .environment
                .as_ref()
                .map(|all| all.iter().map(|one| one.as_str()).collect()),
            states: filter
                .lifecycle_state
                .as_ref()
                .map(|all| all.iter().map(|one| one.as_str()).collect()),
            owner: filter.owner.as_ref(),
            tag: filter.tag.as_ref(),
            pattern: text.as_deref().map(like_pattern),
        })
    }

    pub(super) fn listing(&self) -> Listing<'_> {
        let mut listing = Listing::default();
        if let Some(types) = &self.types {
            listing.only("type = ANY(?)", types);
        }
        if let Some(environments) = &self.environments {
            listing.only("environment = ANY(?)", environments);
        }
        if let Some(states) = &self.states {
            listing.only("lifecycle_state = ANY(?)", states);
        }
        if let Some(owner) = self.owner {
            listing.only("owner_id = ?", owner);
        }
        if let Some(tag) = self.tag {
            listing.only("id IN (SELECT asset_id FROM asset_tag WHERE tag_id = ?)", tag);
        }
        if let Some(pattern) = &self.pattern {
            listing.only("(name ILIKE ? OR code ILIKE ?)", pattern);
        }
        listing
    }
}

/// A pattern that finds the text anywhere, with what `LIKE` would interpret taken literally.
fn like_pattern(text: &str) -> String {
    let escaped = text.replace('\\', r"\\").replace('%', r"\%").replace('_', r"\_");
    format!("%{escaped}%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_literal() {
        assert_eq!(like_pattern(r"50%_a\b"), r"%50\%\_a\\b%");
    }
}
