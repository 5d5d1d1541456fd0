//! Facts: the typed values of one asset that rules can read. `rule/facts/parse` parses the attributes from a row's
//! JSON.
//!
//! Values have the types of the CEL evaluator, so an evaluation borrows them without conversion. Attributes are parsed
//! directly from the bytes of the row, because a run may read a hundred thousand assets. One fact, `attr.os_supported`,
//! can be derived from other facts. The derived value is computed when a rule reads it, as of the time of the
//! evaluation.

use std::sync::OnceLock;

use cel::common::types::{CelBool, CelInt, CelList, CelString, CelTimestamp};
use chrono::{DateTime, SubsecRound, Utc};
use tokio_postgres::Row;

use super::key::FactKey;
use crate::{
    base::{
        db::FromRow,
        entity::{AssetId, UserId},
        error::Result,
    },
    inventory::{
        asset::{AssetType, Environment, LifecycleState},
        attribute::{Attribute, OS_SUPPORTED},
        end_of_life::{self, OsRelease},
    },
};

mod parse;

use parse::RawJson;

/// The facts of one asset.
#[derive(Debug)]
pub struct Facts {
    /// The asset that the facts describe.
    pub asset: AssetId,
    /// Type of the asset, such as host.
    pub asset_type: AssetType,
    /// Environment of the asset, such as production.
    pub environment: Environment,
    /// The values by index of the [`FactKey`]; `None` for a missing fact.
    values: Vec<Option<FactValue>>,
    /// True if the attribute `os_supported` is stored. A stored value takes precedence over the derived one.
    has_stored_os_supported: bool,
    /// Release whose end-of-life date determines the derived `os_supported`, computed on the first read; `None` if
    /// `os_supported` is stored, or if the release is unknown.
    eol_release: OnceLock<Option<OsRelease>>,
}

/// A fact's value, as a CEL value.
#[derive(Debug, Clone)]
pub(super) enum FactValue {
    Bool(CelBool),
    Int(CelInt),
    Text(CelString<'static>),
    Time(CelTimestamp),
    List(CelList<'static>),
}

/// The row of an asset, before its values are converted to facts.
#[derive(Debug, Clone)]
pub struct FactsRow<'a> {
    /// The asset's id, beginning `ast_`.
    pub asset: AssetId,
    /// Type of the asset, such as host.
    pub asset_type: AssetType,
    /// Environment of the asset, such as production.
    pub environment: Environment,
    /// State of the asset's life cycle.
    pub lifecycle_state: LifecycleState,
    /// Name of the asset, as users see it.
    pub name: &'a str,
    /// Short code of the asset, as on its label, e.g. `HST-4F7K2`.
    pub code: &'a str,
    /// Id of the asset in the system from which it was imported.
    pub external_id: Option<&'a str>,
    /// Location of the asset, if one is stored.
    pub location: Option<&'a str>,
    /// Description of the asset, if one is stored.
    pub description: Option<&'a str>,
    /// Owner of the asset, if the asset has an owner.
    pub owner: Option<Owner>,
    /// Names of the asset's tags; empty unless the row was read with [`Facts::SELECT_WITH_TAGS`].
    pub tags: Vec<String>,
    /// Attributes of the asset: the bytes of a JSON object.
    pub attributes: &'a [u8],
}

/// Facts of an asset's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user who owns the asset.
    pub user: UserId,
    /// True if the owner has MFA enabled.
    pub mfa_enabled: bool,
    /// True if the owner's membership is active.
    pub active: bool,
}

macro_rules! select {
    ($tags:literal) => {
        concat!(
            "SELECT asset.id, asset.type, asset.environment, asset.lifecycle_state, asset.name, asset.code,
                    asset.external_id, asset.location, asset.description, asset.owner_id, asset.attributes,
                    owner.mfa_enabled AS owner_mfa_enabled, owner.active AS owner_active, ",
            $tags,
            " AS tags
             FROM asset
             LEFT JOIN member AS owner ON owner.org_id = asset.org_id AND owner.id = asset.owner_id"
        )
    };
}

impl Facts {
    /// Selects the columns of [`Facts`] without the names of tags, which is cheaper if no rule reads tags. Append a
    /// `WHERE` clause on `asset`.
    pub const SELECT: &'static str = select!("NULL::text[]");

    /// Like [`Self::SELECT`], but includes the names of tags.
    pub const SELECT_WITH_TAGS: &'static str = select!(
        "ARRAY(SELECT tag.name FROM asset_tag JOIN tag ON tag.org_id = asset_tag.org_id AND tag.id = asset_tag.tag_id
               WHERE asset_tag.org_id = asset.org_id AND asset_tag.asset_id = asset.id ORDER BY tag.folded)"
    );

    /// Returns the statement that selects the columns for these keys.
    pub(super) fn select(mut reads: impl Iterator<Item = FactKey>) -> &'static str {
        if reads.any(|key| key == FactKey::TAGS) { Self::SELECT_WITH_TAGS } else { Self::SELECT }
    }

    /// Returns the typed facts of a row. A value whose type differs from the attribute's type is converted if possible;
    /// otherwise the fact is missing.
    ///
    /// # Errors
    /// `Corrupt` if the attributes are not a JSON object.
    pub fn of(row: &FactsRow<'_>) -> Result<Self> {
        let mut values: Vec<Option<FactValue>> = Vec::with_capacity(FactKey::count());
        let enum_text = |text: &'static str| Some(FactValue::Text(CelString::from(text)));
        let text = |text: Option<&str>| text.map(|text| FactValue::Text(text.to_owned().into()));
        values.extend([
            enum_text(row.asset_type.as_str()),
            enum_text(row.environment.as_str()),
            enum_text(row.lifecycle_state.as_str()),
            text(Some(row.name)),
            text(Some(row.code)),
            text(row.external_id),
            text(row.location),
            text(row.description),
            Some(FactValue::texts(row.tags.iter().cloned())),
            row.owner.map(|owner| FactValue::Text(owner.user.to_string().into())),
            row.owner.map(|owner| FactValue::Bool(owner.mfa_enabled.into())),
            row.owner.map(|owner| FactValue::Bool(owner.active.into())),
        ]);
        values.resize_with(FactKey::count(), || None);
        let mut facts = Self {
            asset: row.asset,
            asset_type: row.asset_type,
            environment: row.environment,
            values,
            has_stored_os_supported: false,
            eol_release: OnceLock::new(),
        };
        parse::attributes(row.attributes, |index, value| {
            let key = FactKey::of_attribute(index);
            facts.has_stored_os_supported |= key == Self::os_supported_key();
            facts.values[key.index()] = value;
        })?;
        Ok(facts)
    }

    /// Returns the key of `attr.os_supported`, the only fact that can be derived.
    pub(super) fn os_supported_key() -> FactKey {
        static INDEX: OnceLock<usize> = OnceLock::new();
        let index = INDEX.get_or_init(|| {
            Attribute::index_of(OS_SUPPORTED).expect("the attribute registry contains os_supported")
        });
        FactKey::of_attribute(*index)
    }

    /// Returns the stored value of the fact; `None` if there is none. Does not return derived values.
    pub(super) fn value(&self, key: FactKey) -> Option<&FactValue> {
        self.values[key.index()].as_ref()
    }

    /// Returns true if the asset has one of these tags. The names must be in lower case.
    pub(super) fn has_tag(&self, lowercase_names: &[String]) -> bool {
        let Some(FactValue::List(tags)) = self.value(FactKey::TAGS) else { return false };
        tags.inner().iter().any(|tag| {
            let name = tag.downcast_ref::<CelString<'_>>().map(|name| name.inner().to_lowercase());
            name.is_some_and(|name| lowercase_names.contains(&name))
        })
    }

    /// Returns the operating system release whose end-of-life date determines the derived `os_supported`. `None` if
    /// `os_supported` is stored, or if the release is unknown.
    pub(super) fn eol_release(&self) -> Option<&OsRelease> {
        self.eol_release
            .get_or_init(|| {
                let text = |field| match self.value(FactKey::of_field("attr", field)?)? {
                    FactValue::Text(text) => Some(text.inner()),
                    FactValue::Bool(_)
                    | FactValue::Int(_)
                    | FactValue::Time(_)
                    | FactValue::List(_) => None,
                };
                end_of_life::find_release(
                    self.has_stored_os_supported,
                    text("os_name"),
                    text("os_version"),
                )
            })
            .as_ref()
    }

    /// Returns the derived value of `os_supported` as of `now`; `None` if it cannot be derived.
    pub(super) fn derived_os_supported(&self, now: DateTime<Utc>) -> Option<bool> {
        self.eol_release().map(|release| release.is_supported_at(now))
    }
}

impl FactValue {
    /// Returns a timestamp truncated to microseconds, the precision of Postgres.
    fn time(at: DateTime<Utc>) -> Self {
        Self::Time(at.trunc_subsecs(6).fixed_offset().into())
    }

    fn texts(items: impl Iterator<Item = String>) -> Self {
        let boxed: Vec<Box<dyn cel::common::value::Val>> =
            items.map(|item| Box::new(CelString::from(item)) as _).collect();
        Self::List(boxed.into())
    }

    fn ints(items: impl Iterator<Item = i64>) -> Self {
        let boxed: Vec<Box<dyn cel::common::value::Val>> =
            items.map(|item| Box::new(CelInt::from(item)) as _).collect();
        Self::List(boxed.into())
    }
}

impl FromRow for Facts {
    fn from_row(row: &Row) -> Result<Self> {
        let attributes: RawJson<'_> = row.try_get("attributes")?;
        let owner: Option<UserId> = row.try_get("owner_id")?;
        let owner = match owner {
            None => None,
            Some(user) => {
                let mfa_enabled: Option<bool> = row.try_get("owner_mfa_enabled")?;
                let active: Option<bool> = row.try_get("owner_active")?;
                Some(Owner {
                    user,
                    mfa_enabled: mfa_enabled.unwrap_or(false),
                    active: active.unwrap_or(false),
                })
            }
        };
        let tags: Option<Vec<String>> = row.try_get("tags")?;
        Self::of(&FactsRow {
            asset: row.try_get("id")?,
            asset_type: AssetType::from_column(row.try_get("type")?)?,
            environment: Environment::from_column(row.try_get("environment")?)?,
            lifecycle_state: LifecycleState::from_column(row.try_get("lifecycle_state")?)?,
            name: row.try_get("name")?,
            code: row.try_get("code")?,
            external_id: row.try_get("external_id")?,
            location: row.try_get("location")?,
            description: row.try_get("description")?,
            owner,
            tags: tags.unwrap_or_default(),
            attributes: attributes.0,
        })
    }
}

#[cfg(test)]
pub(super) mod tests;
