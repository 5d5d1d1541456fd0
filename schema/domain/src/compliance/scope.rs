//! The scope of a run: a filter for the assets to evaluate.

use async_graphql::InputObject;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio_postgres::Row;

use crate::{
    base::{
        db::Tx,
        entity::{AssetId, TagId, UserId},
        error::{Error, FieldError, Result},
        listing::Listing,
    },
    inventory::asset::{AssetType, Environment, LifecycleState},
};

/// Maximum number of assets that a scope may list by id.
const MAX_ASSETS: usize = 1_000;

/// Filter for the assets to evaluate. An asset must be in operation and match all given fields; an omitted field
/// matches every asset.
#[derive(Debug, Clone, Default, PartialEq, Eq, InputObject)]
pub struct ScanScope {
    /// Asset types to include. An empty list is rejected.
    #[graphql(name = "type")]
    pub asset_type: Option<Vec<AssetType>>,
    /// Environments to include. An empty list is rejected.
    pub environment: Option<Vec<Environment>>,
    /// Owner of the assets to include.
    pub owner: Option<UserId>,
    /// Tag of the assets to include.
    pub tag: Option<TagId>,
    /// Ids of the assets to include, 1 to 1,000.
    pub assets: Option<Vec<AssetId>>,
}

/// A scope in canonical form, as a run stores it: scopes with the same meaning are equal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub(crate) struct AssetScope {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(super) types: Option<Vec<AssetType>>,
    #[serde(rename = "environment", skip_serializing_if = "Option::is_none")]
    pub(super) environments: Option<Vec<Environment>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) owner: Option<UserId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tag: Option<TagId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) assets: Option<Vec<AssetId>>,
}

impl ScanScope {
    /// Validates the scope and returns its canonical form; `None` if it includes all assets.
    pub(super) fn check(&self) -> Result<Option<AssetScope>> {
        let empty = [
            ("scope.type", self.asset_type.as_ref().is_some_and(Vec::is_empty)),
            ("scope.environment", self.environment.as_ref().is_some_and(Vec::is_empty)),
            ("scope.assets", self.assets.as_ref().is_some_and(Vec::is_empty)),
        ];
        let empty = empty.into_iter().filter(|(_, is_empty)| *is_empty);
        let faults: Vec<_> = empty
            .map(|(path, _)| FieldError::new(path, "is empty; omit it to include all"))
            .collect();
        if !faults.is_empty() {
            return Err(Error::Invalid(faults));
        }
        let count = self.assets.as_ref().map_or(0, Vec::len);
        if count > MAX_ASSETS {
            let message = format!("names {count} assets, at most {MAX_ASSETS} are allowed");
            return Err(Error::invalid("scope.assets", message));
        }
        let scope = AssetScope {
            types: sorted_set(self.asset_type.as_ref()),
            environments: sorted_set(self.environment.as_ref()),
            owner: self.owner,
            tag: self.tag,
            assets: sorted_set(self.assets.as_ref()),
        };
        Ok((scope != AssetScope::ALL).then_some(scope))
    }
}

impl AssetScope {
    const ALL: Self =
        Self { types: None, environments: None, owner: None, tag: None, assets: None };

    /// Returns the SHA-256 of the scope's JSON in hexadecimal. Equal scopes have equal keys.
    pub(super) fn key(&self) -> String {
        let text = serde_json::to_vec(self).expect("a scope is plain data");
        format!("{:x}", Sha256::digest(text))
    }

    /// Parses the column `compliance_run.scope`; null becomes `None`.
    pub(crate) fn from_column(scope: Option<&serde_json::Value>) -> Result<Option<Self>> {
        let corrupt = Error::Corrupt { table: "compliance_run", column: "scope" };
        scope.map(serde::Deserialize::deserialize).transpose().map_err(|_| corrupt)
    }
}

/// The values of a scope as SQL parameters.
pub(crate) struct ScopeValues<'a> {
    types: Option<Vec<&'static str>>,
    environments: Option<Vec<&'static str>>,
    scope: Option<&'a AssetScope>,
}

impl AssetScope {
    /// Returns true if at least one asset in operation is in the scope.
    pub(super) async fn includes_any(&self, tx: &Tx) -> Result<bool> {
        let values = ScopeValues::of(Some(self));
        let (filter, params) = values.in_operation().into_sql();
        let sql = format!("SELECT EXISTS (SELECT FROM asset WHERE {filter}) AS any");
        Ok(tx.one::<Row>(&sql, &params).await?.try_get("any")?)
    }
}

impl<'a> ScopeValues<'a> {
    pub(crate) fn of(scope: Option<&'a AssetScope>) -> Self {
        let types = scope.and_then(|scope| scope.types.as_ref());
        let environments = scope.and_then(|scope| scope.environments.as_ref());
        Self {
            types: types.map(|all| all.iter().map(|value| value.as_str()).collect()),
            environments: environments.map(|all| all.iter().map(|value| value.as_str()).collect()),
            scope,
        }
    }

    /// Returns a listing of the assets that are in operation and in the scope.
    pub(super) fn in_operation(&self) -> Listing<'_> {
        let mut listing = self.listing();
        listing.with_constant(LifecycleState::IN_OPERATION);
        listing
    }

    /// Returns a listing of the assets in the scope.
    fn listing(&self) -> Listing<'_> {
        let mut listing = Listing::default();
        if let Some(types) = &self.types {
            listing.filter("asset.type = ANY(?)", types);
        }
        if let Some(environments) = &self.environments {
            listing.filter("asset.environment = ANY(?)", environments);
        }
        let Some(scope) = self.scope else { return listing };
        if let Some(owner) = &scope.owner {
            listing.filter("asset.owner_id = ?", owner);
        }
        if let Some(tag) = &scope.tag {
            listing.filter("asset.id IN (SELECT asset_id FROM asset_tag WHERE tag_id = ?)", tag);
        }
        if let Some(assets) = &scope.assets {
            listing.filter("asset.id = ANY(?)", assets);
        }
        listing
    }

    /// Returns a listing of rows that refer to assets now in the scope by `asset_id`. Without a scope the listing
    /// includes all rows.
    pub(crate) fn rows_of_assets(&self) -> Listing<'_> {
        if self.scope.is_some() { self.listing().rows_of_assets() } else { Listing::default() }
    }
}

fn sorted_set<T: Ord + Clone>(values: Option<&Vec<T>>) -> Option<Vec<T>> {
    let mut values = values?.clone();
    values.sort_unstable();
    values.dedup();
    Some(values)
}
