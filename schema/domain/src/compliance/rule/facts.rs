//! What rules can read of one asset, as typed values. (`rule/facts/read`: from a row's JSON.)
//!
//! Values are kept as the evaluator wants them, so that a rule borrows and never converts; and they are read straight from the
//! row's bytes, because a hundred thousand assets are read for each scan. What follows from other facts is derived when a
//! rule asks for it, as of the instant it asks for.

use std::sync::OnceLock;

use cel::common::types::{CelBool, CelInt, CelList, CelString, CelTimestamp};
use chrono::{DateTime, SubsecRound, Utc};
use tokio_postgres::Row;

use super::key::Key;
use crate::{
    base::{
        db::FromRow,
        entity::{AssetId, UserId},
        error::Result,
    },
    inventory::{
        asset::{AssetType, Environment, LifecycleState},
        attribute::{Attribute, OS_SUPPORTED},
        end_of_life::{self, SupportedSystem},
    },
};

mod read;

use read::RawJson;

/// What rules can read of one asset.
#[derive(Debug)]
pub struct Facts {
    /// Of which one.
    pub asset: AssetId,
    /// What kind of thing it is.
    pub asset_type: AssetType,
    /// What it is used for.
    pub environment: Environment,
    /// By the places of keys.
    held: Vec<Option<FactValue>>,
    /// Whether somebody says if its system is supported, so that nothing is derived.
    is_support_said: bool,
    system: OnceLock<Option<SupportedSystem>>,
}

/// A value, as the evaluator wants it.
#[derive(Debug, Clone)]
pub(super) enum FactValue {
    Bool(CelBool),
    Int(CelInt),
    Text(CelString<'static>),
    Time(CelTimestamp),
    List(CelList<'static>),
}

/// What an asset's row says, before it is typed.
#[derive(Debug, Clone)]
pub struct Described<'a> {
    /// Its id.
    pub asset: AssetId,
    /// What kind of thing it is.
    pub asset_type: AssetType,
    /// What it is used for.
    pub environment: Environment,
    /// Where it is in its life.
    pub lifecycle_state: LifecycleState,
    /// Its name.
    pub name: &'a str,
    /// Its short code.
    pub code: &'a str,
    /// Its id in the system it was imported from.
    pub external_id: Option<&'a str>,
    /// Where it is.
    pub location: Option<&'a str>,
    /// What there is to say about it.
    pub description: Option<&'a str>,
    /// Who answers for it.
    pub owner: Option<Owner>,
    /// Its tags, by name; none where they were not asked for.
    pub tags: Vec<String>,
    /// Its attributes: a JSON object.
    pub attributes: &'a [u8],
}

/// What rules can read of an asset's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Who it is.
    pub user: UserId,
    /// Whether signing in takes a second factor.
    pub mfa_enabled: bool,
    /// Whether the membership is active.
    pub active: bool,
}

macro_rules! select {
    ($tags:literal) => {
        concat!(
            "SELECT asset.id, asset.type, asset.environment, asset.lifecycle_state, asset.name, asset.code,
                    asset.external_id, asset.location, asset.description, asset.owner_id, asset.attributes,
                    owner.mfa_enabled AS owner_mfa_enabled, membership.active AS owner_active, ",
            $tags,
            " AS tags
             FROM asset
             LEFT JOIN membership ON membership.org_id = asset.org_id AND membership.user_id = asset.owner_id
             LEFT JOIN \"user\" AS owner ON owner.id = membership.user_id"
        )
    };
}

impl Facts {
    /// The columns of a row, without the names of its tags: cheaper, and enough where no rule reads them. What follows may
    /// narrow `asset`.
    pub const SELECT: &'static str = select!("NULL::text[]");

    /// As [`Self::SELECT`], with the names of its tags.
    pub const SELECT_WITH_TAGS: &'static str = select!(
        "ARRAY(SELECT tag.name FROM asset_tag JOIN tag ON tag.org_id = asset_tag.org_id AND tag.id = asset_tag.tag_id
               WHERE asset_tag.org_id = asset.org_id AND asset_tag.asset_id = asset.id ORDER BY tag.folded)"
    );

    /// The statement for whoever reads these of them.
    pub(super) fn select(mut reads: impl Iterator<Item = Key>) -> &'static str {
        if reads.any(|key| key == Key::TAGS) { Self::SELECT_WITH_TAGS } else { Self::SELECT }
    }

    /// What a row says, typed. What does not fit its attribute's type counts as what it can be read as, else as missing.
    ///
    /// # Errors
    /// `Corrupt` where the attributes are no JSON object.
    pub fn of(row: &Described<'_>) -> Result<Self> {
        let mut held: Vec<Option<FactValue>> = Vec::with_capacity(Key::count());
        let state = |text: &'static str| Some(FactValue::Text(CelString::from(text)));
        let text = |text: Option<&str>| text.map(|text| FactValue::Text(text.to_owned().into()));
        held.extend([
            state(row.asset_type.as_str()),
            state(row.environment.as_str()),
            state(row.lifecycle_state.as_str()),
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
        held.resize_with(Key::count(), || None);
        let mut facts = Self {
            asset: row.asset,
            asset_type: row.asset_type,
            environment: row.environment,
            held,
            is_support_said: false,
            system: OnceLock::new(),
        };
        read::attributes(row.attributes, |index, value| {
            let key = Key::of_attribute(index);
            facts.is_support_said |= key == Self::support();
            facts.held[key.index()] = value;
        })?;
        Ok(facts)
    }

    /// The key of what may be derived.
    pub(super) fn support() -> Key {
        static PLACE: OnceLock<usize> = OnceLock::new();
        let index = PLACE.get_or_init(|| {
            Attribute::place_of(OS_SUPPORTED).expect("the registry has what is derived")
        });
        Key::of_attribute(*index)
    }

    /// What the key holds, as it was value.
    pub(super) fn value(&self, key: Key) -> Option<&FactValue> {
        self.held[key.index()].as_ref()
    }

    /// Whether it has one of these tags, whatever their case.
    pub(super) fn has_tag(&self, folded: &[String]) -> bool {
        let Some(FactValue::List(tags)) = self.value(Key::TAGS) else { return false };
        tags.inner().iter().any(|tag| {
            let name = tag.downcast_ref::<CelString<'_>>().map(|name| name.inner().to_lowercase());
            name.is_some_and(|name| folded.contains(&name))
        })
    }

    /// The system from which it follows whether the asset's is supported.
    pub(super) fn system(&self) -> Option<&SupportedSystem> {
        self.system
            .get_or_init(|| {
                let text = |field| match self.value(Key::of_field("attr", field)?)? {
                    FactValue::Text(text) => Some(text.inner()),
                    FactValue::Bool(_)
                    | FactValue::Int(_)
                    | FactValue::Time(_)
                    | FactValue::List(_) => None,
                };
                end_of_life::deciding(self.is_support_said, text("os_name"), text("os_version"))
            })
            .as_ref()
    }

    /// Whether its system is supported then, where that follows.
    pub(super) fn derived_support(&self, now: DateTime<Utc>) -> Option<bool> {
        self.system().map(|system| system.is_supported_at(now))
    }
}

impl FactValue {
    /// An instant, as far as Postgres keeps it.
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
        Self::of(&Described {
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
