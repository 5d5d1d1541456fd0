//! Which assets a run is of.

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

/// Assets that a scope names one by one at most.
const MAX_ASSETS: usize = 1_000;

/// Which assets in operation to judge: those that all that is given is true of.
#[derive(Debug, Clone, Default, PartialEq, Eq, InputObject)]
pub struct ScanScope {
    /// Only of these types.
    #[graphql(name = "type")]
    pub asset_type: Option<Vec<AssetType>>,
    /// Only in these environments.
    pub environment: Option<Vec<Environment>>,
    /// Only of this owner.
    pub owner: Option<UserId>,
    /// Only with this tag.
    pub tag: Option<TagId>,
    /// Only these, up to 1,000.
    pub assets: Option<Vec<AssetId>>,
}

/// A scope in its one form, as a run keeps it: what means the same is the same.
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
    /// In its one form; `None` if it lets everything through.
    pub(super) fn check(&self) -> Result<Option<AssetScope>> {
        let empty = [
            ("scope.type", self.asset_type.as_ref().is_some_and(Vec::is_empty)),
            ("scope.environment", self.environment.as_ref().is_some_and(Vec::is_empty)),
            ("scope.assets", self.assets.as_ref().is_some_and(Vec::is_empty)),
        ];
        let empty = empty.into_iter().filter(|(_, is_empty)| *is_empty);
        let faults: Vec<_> = empty
            .map(|(path, _)| {
                FieldError::new(path, "is empty: leave it out where it does not matter")
            })
            .collect();
        if !faults.is_empty() {
            return Err(Error::Invalid(faults));
        }
        let count = self.assets.as_ref().map_or(0, Vec::len);
        if count > MAX_ASSETS {
            let message = format!("names {count} assets, at most {MAX_ASSETS} are judged that way");
            return Err(Error::invalid("scope.assets", message));
        }
        let scope = AssetScope {
            types: set(self.asset_type.as_ref()),
            environments: set(self.environment.as_ref()),
            owner: self.owner,
            tag: self.tag,
            assets: set(self.assets.as_ref()),
        };
        Ok((scope != AssetScope::EVERYTHING).then_some(scope))
    }
}

impl AssetScope {
    const EVERYTHING: Self =
        Self { types: None, environments: None, owner: None, tag: None, assets: None };

    /// One text for the same scope.
    pub(super) fn key(&self) -> String {
        let text = serde_json::to_vec(self).expect("a scope is plain data");
        format!("{:x}", Sha256::digest(text))
    }

    /// What a run keeps.
    pub(crate) fn from_column(scope: Option<&serde_json::Value>) -> Result<Option<Self>> {
        let corrupt = Error::Corrupt { table: "compliance_run", column: "scope" };
        scope.map(serde::Deserialize::deserialize).transpose().map_err(|_| corrupt)
    }
}

/// A scope as values that a statement can be given.
pub(crate) struct ScopeValues<'a> {
    types: Option<Vec<&'static str>>,
    environments: Option<Vec<&'static str>>,
    scope: Option<&'a AssetScope>,
}

impl AssetScope {
    /// Whether there is an asset to judge.
    pub(super) async fn lets_any_through(&self, tx: &Tx) -> Result<bool> {
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
            types: types.map(|all| all.iter().map(|one| one.as_str()).collect()),
            environments: environments.map(|all| all.iter().map(|one| one.as_str()).collect()),
            scope,
        }
    }

    /// The assets in operation that it lets through.
    pub(super) fn in_operation(&self) -> Listing<'_> {
        let mut listing = self.listing();
        listing.holds(LifecycleState::IN_OPERATION);
        listing
    }

    /// The assets that it lets through.
    fn listing(&self) -> Listing<'_> {
        let mut listing = Listing::default();
        if let Some(types) = &self.types {
            listing.only("asset.type = ANY(?)", types);
        }
        if let Some(environments) = &self.environments {
            listing.only("asset.environment = ANY(?)", environments);
        }
        let Some(scope) = self.scope else { return listing };
        if let Some(owner) = &scope.owner {
            listing.only("asset.owner_id = ?", owner);
        }
        if let Some(tag) = &scope.tag {
            listing.only("asset.id IN (SELECT asset_id FROM asset_tag WHERE tag_id = ?)", tag);
        }
        if let Some(assets) = &scope.assets {
            listing.only("asset.id = ANY(?)", assets);
        }
        listing
    }

    /// What there is about the assets that it lets through now; without a filter also what is about others.
    pub(crate) fn about(&self) -> Listing<'_> {
        if self.scope.is_some() { self.listing().about() } else { Listing::default() }
    }
}

fn set<T: Ord + Clone>(values: Option<&Vec<T>>) -> Option<Vec<T>> {
    let mut values = values?.clone();
    values.sort_unstable();
    values.dedup();
    Some(values)
}
