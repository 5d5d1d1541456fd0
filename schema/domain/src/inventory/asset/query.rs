//! Filter and order of asset lists.

use async_graphql::{Enum, InputObject};
use unicode_normalization::UnicodeNormalization;

use super::{AssetType, Environment, LifecycleState};
use crate::base::{
    entity::{TagId, UserId},
    error::{Error, Result},
    listing::{Listing, Order},
};

/// Filter for assets; an asset must match all given fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, InputObject)]
pub struct AssetFilter {
    /// Assets with one of these types.
    #[graphql(name = "type")]
    pub asset_type: Option<Vec<AssetType>>,
    /// Assets used in one of these environments.
    pub environment: Option<Vec<Environment>>,
    /// Assets in one of these lifecycle states.
    pub lifecycle_state: Option<Vec<LifecycleState>>,
    /// Assets with this user as the owner.
    pub owner: Option<UserId>,
    /// Assets that have this tag.
    pub tag: Option<TagId>,
    /// Assets with this text in their name or short code, ignoring case. The text has up to 255 characters.
    pub text: Option<String>,
}

/// Field by which assets are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub enum AssetOrderField {
    /// Time of creation of the asset.
    CreatedAt,
    /// Time of the asset's last change.
    UpdatedAt,
    /// Name of the asset.
    Name,
    /// Short code of the asset.
    Code,
}

/// Direction in which a list is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub enum OrderDirection {
    /// Smallest or oldest value first.
    Asc,
    /// Largest or newest value first.
    Desc,
}

/// Order of a list of assets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, InputObject)]
pub struct AssetOrder {
    /// Field by which the list is ordered.
    pub field: AssetOrderField,
    /// Direction of the order; default ascending.
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
            AssetOrderField::CreatedAt => None, // Ids increase with the time of creation.
            AssetOrderField::UpdatedAt => Some(("updated_at", "timestamptz")),
            AssetOrderField::Name => Some(("name", "text")),
            AssetOrderField::Code => Some(("code", "text")),
        };
        Order { column, id: "id", descending: matches!(self.direction, OrderDirection::Desc) }
    }
}

/// The values of a filter, in the form in which a statement binds them.
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
        // Names are stored in the composed Unicode form (NFC).
        let text: Option<String> = text.map(|text| text.nfc().collect());
        if text.as_ref().is_some_and(|text| text.chars().count() > 255) {
            return Err(Error::invalid("filter.text", "has more than 255 characters"));
        }
        if text.as_ref().is_some_and(|text| text.contains('\0')) {
            return Err(Error::invalid("filter.text", "contains the control character U+0000"));
        }
        Ok(Self {
            types: filter
                .asset_type
                .as_ref()
                .map(|values| values.iter().map(|value| value.as_str()).collect()),
            environments: filter
                .environment
                .as_ref()
                .map(|values| values.iter().map(|value| value.as_str()).collect()),
            states: filter
                .lifecycle_state
                .as_ref()
                .map(|values| values.iter().map(|value| value.as_str()).collect()),
            owner: filter.owner.as_ref(),
            tag: filter.tag.as_ref(),
            pattern: text.as_deref().map(like_pattern),
        })
    }

    pub(super) fn listing(&self) -> Listing<'_> {
        let mut listing = Listing::default();
        if let Some(types) = &self.types {
            listing.filter("type = ANY(?)", types);
        }
        if let Some(environments) = &self.environments {
            listing.filter("environment = ANY(?)", environments);
        }
        if let Some(states) = &self.states {
            listing.filter("lifecycle_state = ANY(?)", states);
        }
        if let Some(owner) = self.owner {
            listing.filter("owner_id = ?", owner);
        }
        if let Some(tag) = self.tag {
            listing.filter("id IN (SELECT asset_id FROM asset_tag WHERE tag_id = ?)", tag);
        }
        if let Some(pattern) = &self.pattern {
            // Row security rules out an index on the text, so every row of the organization is compared. The collation
            // "C" folds only ASCII letters, which is all that an ASCII pattern needs, and takes half the time.
            let condition = if pattern.is_ascii() {
                r#"(name COLLATE "C" ILIKE ? OR code COLLATE "C" ILIKE ?)"#
            } else {
                "(name ILIKE ? OR code ILIKE ?)"
            };
            listing.filter(condition, pattern);
        }
        listing
    }
}

/// Returns a `LIKE` pattern that matches every value that contains the text. Wildcards in the text are escaped.
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
