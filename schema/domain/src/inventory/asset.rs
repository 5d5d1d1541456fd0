//! Assets: hosts, network devices, services, software licences and cloud resources.
//!
//! - `asset/query`: filter and order of asset lists.
//! - `asset/patch`: changes to one asset.
//! - `asset/fact`: attribute values with their sources and times.
//! - `asset/object`: rules for the JSON objects `attributes` and `customFields`.
//! - `asset/store`: inserts and updates of many assets in one statement.
//!
//! The lifecycle state changes along legal transitions only. An asset can be deleted only if it is retired or disposed,
//! so that a deletion never loses the history of an asset in operation. Attributes and custom fields are JSON objects;
//! an update merges its changes into them by key. Attributes have the keys and types of the registry, and rules read
//! them. Custom fields have any names and values, and no rule reads them.
//!
//! Long, because the asset's type, its two inputs and all writes are in one file: a new field changes all of them.

use std::{iter, slice};

use async_graphql::{InputObject, MaybeUndefined, SimpleObject};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use tokio_postgres::Row;

use crate::{
    access::audit::Entry,
    base::{
        db::{FromRow, Tx},
        entity::{AssetId, TagId, UserId},
        error::{Error, Result},
        event::Event,
        page::{Page, PageRequest, Position},
        text::text_enum,
    },
    inventory::{custody::Custody, dependency::Dependency},
};

mod fact;
mod object;
mod patch;
mod query;
mod store;

pub(crate) use fact::Provenance;
pub use fact::{Fact, FactSource, Sources};
pub(crate) use patch::Patch;
use query::FilterValues;
pub use query::{AssetFilter, AssetOrder, AssetOrderField, OrderDirection};
pub(crate) use store::{Change, Draft, insert_all, update_all};

text_enum! {
    /// An asset's type, which never changes.
    AssetType in "asset"."type" {
        /// A physical or virtual machine.
        Host = "HOST",
        /// A router, switch, firewall or access point.
        NetworkDevice = "NETWORK_DEVICE",
        /// A service: running software that answers requests.
        Service = "SERVICE",
        /// A software licence: the right to use software.
        SoftwareLicense = "SOFTWARE_LICENSE",
        /// A resource rented from a cloud provider.
        CloudResource = "CLOUD_RESOURCE",
    }
}

text_enum! {
    /// Lifecycle state of an asset.
    LifecycleState in "asset"."lifecycle_state" {
        /// The asset is being set up.
        Provisioning = "PROVISIONING",
        /// The asset is in use.
        Active = "ACTIVE",
        /// The asset is temporarily out of use.
        Maintenance = "MAINTENANCE",
        /// The asset is out of use. It can be reactivated, disposed of or deleted.
        Retired = "RETIRED",
        /// The asset was scrapped, sold or returned. This state is final.
        Disposed = "DISPOSED",
    }
}

impl LifecycleState {
    /// SQL condition for assets in operation. Rules are evaluated only on assets in operation, and such an asset cannot
    /// be deleted.
    pub(crate) const IN_OPERATION: &str = "asset.lifecycle_state NOT IN ('RETIRED', 'DISPOSED')";

    /// Returns true if an asset in this state is in operation: being set up, in use, or temporarily out of use.
    pub const fn is_in_operation(self) -> bool {
        match self {
            Self::Provisioning | Self::Active | Self::Maintenance => true,
            Self::Retired | Self::Disposed => false,
        }
    }

    /// Returns the states to which an asset in this state can change.
    pub const fn next(self) -> &'static [Self] {
        match self {
            Self::Active => &[Self::Maintenance, Self::Retired],
            Self::Provisioning | Self::Maintenance => &[Self::Active, Self::Retired],
            Self::Retired => &[Self::Active, Self::Disposed],
            Self::Disposed => &[],
        }
    }

    /// Checks that an asset in this state can change to `state`; an unchanged state is legal.
    ///
    /// # Errors
    /// A message that lists the legal next states.
    pub fn check_next(self, state: Self) -> Result<(), String> {
        if self == state || self.next().contains(&state) {
            return Ok(());
        }
        let legal = match self.next() {
            [] => "this state is final".to_owned(),
            next => {
                let names: Vec<_> = next.iter().map(|state| state.as_str()).collect();
                format!("the legal next states are {}", names.join(" and "))
            }
        };
        Err(format!("is {} and cannot become {}: {legal}", self.as_str(), state.as_str()))
    }
}

text_enum! {
    /// Environment in which an asset is used.
    Environment in "asset"."environment" {
        /// The asset is used in production.
        Prod = "PROD",
        /// The asset is used for staging, i.e. for tests before production.
        Staging = "STAGING",
        /// The asset is used for development.
        Dev = "DEV",
    }
}

/// An asset: a host, network device, service, software licence or cloud resource.
#[derive(Debug, Clone, PartialEq, SimpleObject, Serialize)]
#[serde(rename_all = "camelCase")]
#[graphql(name = "AssetRow")]
pub struct Asset {
    /// The asset's id, beginning `ast_`.
    #[serde(skip)]
    pub id: AssetId,
    /// The asset's short code, a unique id for people that is printed on the asset's label, e.g. `HST-4F7K2`.
    pub code: String,
    /// The asset's id in the system that it was imported from, unique in the organization; null if there is none.
    pub external_id: Option<String>,
    /// The asset's name, e.g. `billing-db-1`.
    pub name: String,
    /// The asset's type, which never changes.
    #[graphql(name = "type")]
    #[serde(rename = "type")]
    pub asset_type: AssetType,
    /// The asset's current lifecycle state.
    pub lifecycle_state: LifecycleState,
    /// Environment in which the asset is used.
    pub environment: Environment,
    /// The asset's location, as free text; null if unknown.
    pub location: Option<String>,
    /// The asset's description, as free text; null if there is none.
    pub description: Option<String>,
    /// The user who is responsible for the asset; `None` if there is none.
    #[graphql(skip)]
    #[serde(rename = "owner")]
    pub owner_id: Option<UserId>,
    /// Attribute values as stored, by key. `facts` also returns their sources and the derived values.
    pub attributes: Value,
    /// Source and observation time of each attribute in `attributes`.
    #[graphql(skip)]
    #[serde(skip)]
    pub sources: Sources,
    /// Custom fields of the asset: values of any type under names that the organization chooses. Rules do not read
    /// them.
    pub custom_fields: Value,
    /// Time at which the asset was added to the inventory.
    #[serde(skip)]
    pub created_at: DateTime<Utc>,
    /// Time of the last change of the asset in the inventory.
    #[serde(skip)]
    pub updated_at: DateTime<Utc>,
}

impl FromRow for Asset {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.try_get("id")?,
            code: row.try_get("code")?,
            external_id: row.try_get("external_id")?,
            name: row.try_get("name")?,
            asset_type: AssetType::from_column(row.try_get("type")?)?,
            lifecycle_state: LifecycleState::from_column(row.try_get("lifecycle_state")?)?,
            environment: Environment::from_column(row.try_get("environment")?)?,
            location: row.try_get("location")?,
            description: row.try_get("description")?,
            owner_id: row.try_get("owner_id")?,
            attributes: row.try_get("attributes")?,
            sources: Sources::from_column(row.try_get("sources")?)?,
            custom_fields: row.try_get("custom_fields")?,
            created_at: row.try_get("created_at")?,
            updated_at: row.try_get("updated_at")?,
        })
    }
}

/// The values of a new asset.
#[derive(Debug, Clone, InputObject)]
pub struct CreateAssetInput {
    /// The asset's name, up to 255 characters.
    pub name: String,
    /// The asset's type; it never changes.
    #[graphql(name = "type")]
    pub asset_type: AssetType,
    /// Environment in which the asset is used.
    #[graphql(default_with = "Some(Environment::Prod)")]
    pub environment: Option<Environment>,
    /// The asset's initial lifecycle state.
    #[graphql(default_with = "Some(LifecycleState::Active)")]
    pub lifecycle_state: Option<LifecycleState>,
    /// The asset's id in the system that it comes from; unique in the organization.
    pub external_id: Option<String>,
    /// The asset's location, up to 255 characters.
    pub location: Option<String>,
    /// The asset's description, up to 4096 characters.
    pub description: Option<String>,
    /// The user who is responsible for the asset; must be a member of the organization.
    pub owner: Option<UserId>,
    /// Ids of the asset's tags, each beginning `tag_`; up to 50.
    pub tags: Option<Vec<TagId>>,
    /// Attribute values, as an object by key. The query `attributes` lists the keys and value types. Rules read these
    /// values. Use `customFields` for other data.
    pub attributes: Option<Value>,
    /// Custom fields, as an object by key. The keys and values are free, and rules do not read them.
    pub custom_fields: Option<Value>,
}

/// Changes to an asset. An absent field stays unchanged, and `null` clears a field. The objects `attributes` and
/// `customFields` are merged by key: a key with the value `null` is removed, and absent keys stay unchanged.
#[derive(Debug, Clone, Default, InputObject)]
pub struct UpdateAssetInput {
    /// The asset's name, up to 255 characters; cannot be cleared.
    pub name: MaybeUndefined<String>,
    /// Environment in which the asset is used; cannot be cleared.
    pub environment: MaybeUndefined<Environment>,
    /// The asset's id in the system that it comes from; unique in the organization.
    pub external_id: MaybeUndefined<String>,
    /// The asset's location, up to 255 characters.
    pub location: MaybeUndefined<String>,
    /// The asset's description, up to 4096 characters.
    pub description: MaybeUndefined<String>,
    /// The user who is responsible for the asset; must be a member of the organization.
    pub owner: MaybeUndefined<UserId>,
    /// Ids of all tags of the asset, each beginning `tag_`; up to 50. Current tags that are not listed are removed.
    pub tags: MaybeUndefined<Vec<TagId>>,
    /// Changed attribute values, as an object by key. The query `attributes` lists the keys.
    pub attributes: MaybeUndefined<Value>,
    /// Changed custom fields, as an object by key. The keys are free.
    pub custom_fields: MaybeUndefined<Value>,
}

const SELECT: &str =
    "SELECT id, code, external_id, name, type, lifecycle_state, environment, location, description,
    owner_id, attributes, sources, custom_fields, created_at, updated_at FROM asset";

impl Asset {
    /// Returns the asset with this id, or `None`.
    pub async fn find(tx: &Tx, id: AssetId) -> Result<Option<Self>> {
        tx.opt(&format!("{SELECT} WHERE id = $1"), &[&id]).await
    }

    /// Returns the asset with this short code, or `None`. Ignores case.
    pub async fn find_by_code(tx: &Tx, code: &str) -> Result<Option<Self>> {
        if code.contains('\0') {
            return Ok(None); // Postgres rejects U+0000 in a text parameter.
        }
        tx.opt(&format!("{SELECT} WHERE code = $1"), &[&code.to_uppercase()]).await
    }

    /// Returns the assets with these ids; unknown ids are skipped.
    pub async fn of_ids(tx: &Tx, ids: &[AssetId]) -> Result<Vec<Self>> {
        tx.all(&format!("{SELECT} WHERE id = ANY($1)"), &[&ids]).await
    }

    /// Returns a page of the assets that match the filter.
    pub async fn list(
        tx: &Tx,
        filter: &AssetFilter,
        order: AssetOrder,
        page: &PageRequest,
    ) -> Result<Page<Self>> {
        let values = FilterValues::of(filter)?;
        values.listing().page(tx, SELECT, order.sql(), page).await
    }

    /// Returns the number of assets that match the filter.
    pub async fn count(tx: &Tx, filter: &AssetFilter) -> Result<i64> {
        FilterValues::of(filter)?.listing().count(tx, "asset").await
    }

    /// Returns the asset's position in a list with this order.
    pub fn position(&self, order: AssetOrder) -> Position {
        let value = match order.field {
            AssetOrderField::CreatedAt => String::new(),
            AssetOrderField::UpdatedAt => {
                self.updated_at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
            }
            AssetOrderField::Name => self.name.clone(),
            AssetOrderField::Code => self.code.clone(),
        };
        Position { value, id: self.id.uuid() }
    }

    /// Inserts an asset, with its tags and an audit entry.
    ///
    /// # Errors
    /// `Invalid` with one error per invalid field. `NotFound` for an unknown tag. `Conflict` if another asset has the
    /// external id, or if the owner is not a member of the organization.
    pub async fn create(tx: &Tx, input: &CreateAssetInput, now: DateTime<Utc>) -> Result<Self> {
        let mut faults = Vec::new();
        let blank = Draft::new(input.asset_type, now);
        let mut draft =
            Patch::from_create(input).apply(&blank, Provenance::declared(now), &mut faults);
        draft.asset.lifecycle_state = input.lifecycle_state.unwrap_or(LifecycleState::Active);
        draft.asset.environment = input.environment.unwrap_or(Environment::Prod);
        if !faults.is_empty() {
            return Err(Error::Invalid(faults).within("input"));
        }
        let names = Draft::tag_names(tx, iter::once(&draft)).await?;
        insert_all(tx, slice::from_mut(&mut draft), &names).await?;
        tx.emit(Event::changed(tx.org(), draft.asset.id));
        Ok(draft.asset)
    }

    /// Changes the fields that the patch contains. Writes nothing if no value differs.
    ///
    /// # Errors
    /// `NotFound` for an unknown asset or tag. `Invalid` with one error per invalid field. `Conflict` if another asset
    /// has the external id, or if the owner is not a member of the organization.
    pub async fn update(
        tx: &Tx,
        id: AssetId,
        patch: &UpdateAssetInput,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let before = Self::lock(tx, id).await?;
        let mut faults = Vec::new();
        let after =
            Patch::from_update(patch).apply(&before, Provenance::declared(now), &mut faults);
        if !faults.is_empty() {
            return Err(Error::Invalid(faults).within("input"));
        }
        Self::store(tx, Change { action: "asset.updated", before, after }, now).await
    }

    /// Changes the asset's lifecycle state.
    ///
    /// # Errors
    /// `NotFound` for an unknown asset. `Conflict` for an illegal transition; the message lists the legal next states.
    pub async fn set_lifecycle(
        tx: &Tx,
        id: AssetId,
        state: LifecycleState,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let before = Self::lock(tx, id).await?;
        let legal = before.asset.lifecycle_state.check_next(state);
        legal.map_err(|message| Error::Conflict(format!("the asset {message}")))?;
        let mut after = before.clone();
        after.asset.lifecycle_state = state;
        Self::store(tx, Change { action: "asset.lifecycle_changed", before, after }, now).await
    }

    /// Deletes an asset that is retired or disposed. Modules other than `inventory` must call
    /// `compliance::asset_deletion::delete_asset`, which also deletes the asset's posture (all verdicts and the score
    /// of the asset) and its findings.
    pub async fn delete(tx: &Tx, id: AssetId, now: DateTime<Utc>) -> Result<()> {
        Self::prepare_deletion(tx, id, now).await?.finish(tx).await
    }

    /// Locks the row of an asset that is retired or disposed, deletes its dependencies and closes its open custody.
    ///
    /// # Errors
    /// `NotFound` for an unknown asset. `Conflict` if the asset is in operation or has too many dependencies.
    pub(crate) async fn prepare_deletion(
        tx: &Tx,
        id: AssetId,
        now: DateTime<Utc>,
    ) -> Result<Deletion> {
        let draft = Self::lock(tx, id).await?;
        let state = draft.asset.lifecycle_state;
        if state.is_in_operation() {
            return Err(Error::Conflict(format!(
                "the asset is {}: only a RETIRED or DISPOSED asset can be deleted; change its state with setAssetLifecycle first",
                state.as_str()
            )));
        }
        let names = Draft::tag_names(tx, iter::once(&draft)).await?;
        Dependency::remove_all_of_asset(tx, id).await?;
        Custody::close_for_deletion(tx, id, now).await?;
        Ok(Deletion { id, snapshot: draft.snapshot(&names) })
    }

    async fn lock(tx: &Tx, id: AssetId) -> Result<Draft> {
        let found = Draft::lock_all(tx, &[id]).await?;
        found.into_iter().next().ok_or_else(|| Error::not_found("asset", id))
    }

    /// Writes the change, its audit entry and its event. Writes nothing if no value differs.
    async fn store(tx: &Tx, mut change: Change, now: DateTime<Utc>) -> Result<Self> {
        if change.before != change.after {
            let drafts = [&change.before, &change.after].into_iter();
            let names = Draft::tag_names(tx, drafts).await?;
            update_all(tx, slice::from_mut(&mut change), &names, now).await?;
            tx.emit(Event::changed(tx.org(), change.after.asset.id));
        }
        Ok(change.after.asset)
    }
}

/// A prepared deletion: the asset's dependencies are deleted and its custody is closed; the asset's row still exists.
#[must_use = "the asset's row is deleted only by `finish`"]
pub(crate) struct Deletion {
    id: AssetId,
    snapshot: Value,
}

impl Deletion {
    /// Deletes the asset's row, and records the audit entry and the event.
    pub(crate) async fn finish(self, tx: &Tx) -> Result<()> {
        tx.exec("DELETE FROM asset WHERE id = $1", &[&self.id]).await?;
        Entry::deleted("asset.deleted", self.id, self.snapshot).record(tx).await?;
        tx.emit(Event::changed(tx.org(), self.id));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_says_of_operation_what_the_states_do() {
        for state in LifecycleState::ALL {
            let is_left_out = LifecycleState::IN_OPERATION.contains(state.as_str());
            assert_eq!(is_left_out, !state.is_in_operation(), "{state:?}");
        }
    }

    #[test]
    fn nothing_follows_the_end() {
        assert!(LifecycleState::Disposed.next().is_empty());
        for state in LifecycleState::ALL {
            assert!(
                !state.next().contains(state)
                    && !state.next().contains(&LifecycleState::Provisioning)
            );
        }
    }
}
