//! Something we operate: a host, a device, a service, a licence, a cloud resource. (`asset/query`: which are asked for;
//! `asset/patch`: what changes of one; `asset/fact`: how we know what we know; `asset/object`: its JSON; `asset/store`: how
//! any number of them are written.)
//!
//! Its life moves along legal transitions only, and it is deleted only from the end of it: deleting is for what was
//! retired, and not a way to lose the history of something that runs. Attributes and custom fields are JSON objects
//! that merge by key on update.
//!
//! Long, because the shape, its two inputs and every write of it stand together: a new field touches all of them.

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
    /// What kind of thing an asset is.
    AssetType in "asset"."type" {
        /// A machine, physical or virtual.
        Host = "HOST",
        /// A router, switch, firewall or access point.
        NetworkDevice = "NETWORK_DEVICE",
        /// Something that runs and answers.
        Service = "SERVICE",
        /// A right to use software.
        SoftwareLicense = "SOFTWARE_LICENSE",
        /// Something rented from a provider.
        CloudResource = "CLOUD_RESOURCE",
    }
}

text_enum! {
    /// Where an asset is in its life.
    LifecycleState in "asset"."lifecycle_state" {
        /// Being set up.
        Provisioning = "PROVISIONING",
        /// In use.
        Active = "ACTIVE",
        /// Out of use for a while.
        Maintenance = "MAINTENANCE",
        /// Out of use for good.
        Retired = "RETIRED",
        /// Gone.
        Disposed = "DISPOSED",
    }
}

impl LifecycleState {
    /// What a statement says of assets in operation: only those are judged, and none of them is deleted.
    pub(crate) const IN_OPERATION: &str = "asset.lifecycle_state NOT IN ('RETIRED', 'DISPOSED')";

    /// Whether an asset in this state is in operation, soon will be, or only for a while is not.
    pub const fn is_in_operation(self) -> bool {
        match self {
            Self::Provisioning | Self::Active | Self::Maintenance => true,
            Self::Retired | Self::Disposed => false,
        }
    }

    /// Where it may go from here.
    pub const fn next(self) -> &'static [Self] {
        match self {
            Self::Active => &[Self::Maintenance, Self::Retired],
            Self::Provisioning | Self::Maintenance => &[Self::Active, Self::Retired],
            Self::Retired => &[Self::Active, Self::Disposed],
            Self::Disposed => &[],
        }
    }

    /// Whether it may go there, or stay.
    ///
    /// # Errors
    /// A sentence that names where it may go instead.
    pub fn check_next(self, state: Self) -> Result<(), String> {
        if self == state || self.next().contains(&state) {
            return Ok(());
        }
        let legal = match self.next() {
            [] => "nothing follows it".to_owned(),
            next => {
                let names: Vec<_> = next.iter().map(|state| state.as_str()).collect();
                format!("it may become {}", names.join(" or "))
            }
        };
        Err(format!("is {} and cannot become {}: {legal}", self.as_str(), state.as_str()))
    }
}

text_enum! {
    /// What an asset is used for.
    Environment in "asset"."environment" {
        /// Production.
        Prod = "PROD",
        /// Rehearsal.
        Staging = "STAGING",
        /// Development.
        Dev = "DEV",
    }
}

/// Something we operate.
#[derive(Debug, Clone, PartialEq, SimpleObject, Serialize)]
#[serde(rename_all = "camelCase")]
#[graphql(name = "AssetRow")]
pub struct Asset {
    /// Its id.
    #[serde(skip)]
    pub id: AssetId,
    /// Its short code, as on its label, e.g. `HST-4F7K2`.
    pub code: String,
    /// Its id in the system it was imported from; unique in the organization.
    pub external_id: Option<String>,
    /// Its name, e.g. `billing-db-1`.
    pub name: String,
    /// What kind of thing it is.
    #[graphql(name = "type")]
    #[serde(rename = "type")]
    pub asset_type: AssetType,
    /// Where it is in its life.
    pub lifecycle_state: LifecycleState,
    /// What it is used for.
    pub environment: Environment,
    /// Where it is.
    pub location: Option<String>,
    /// What there is to say about it.
    pub description: Option<String>,
    /// Who answers for it.
    #[graphql(skip)]
    #[serde(rename = "owner")]
    pub owner_id: Option<UserId>,
    /// What is known of it, by attribute, as it was told; `facts` adds how we know it and what follows from it.
    pub attributes: Value,
    /// How we know each of them, and since when.
    #[graphql(skip)]
    #[serde(skip)]
    pub sources: Sources,
    /// What else the team keeps of it, by name.
    pub custom_fields: Value,
    /// When it was created here.
    #[serde(skip)]
    pub created_at: DateTime<Utc>,
    /// When it was last changed here.
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

/// A new asset.
#[derive(Debug, Clone, InputObject)]
pub struct CreateAssetInput {
    /// Its name, up to 255 characters.
    pub name: String,
    /// What kind of thing it is.
    #[graphql(name = "type")]
    pub asset_type: AssetType,
    /// What it is used for.
    #[graphql(default_with = "Some(Environment::Prod)")]
    pub environment: Option<Environment>,
    /// Where it is in its life.
    #[graphql(default_with = "Some(LifecycleState::Active)")]
    pub lifecycle_state: Option<LifecycleState>,
    /// Its id in the system it comes from; unique in the organization.
    pub external_id: Option<String>,
    /// Where it is.
    pub location: Option<String>,
    /// What there is to say about it, up to 4096 characters.
    pub description: Option<String>,
    /// Who answers for it: a member of the organization.
    pub owner: Option<UserId>,
    /// Its tags.
    pub tags: Option<Vec<TagId>>,
    /// What is known of it: an object, by attribute; the query `attributes` lists them.
    pub attributes: Option<Value>,
    /// What else to keep: an object, by name.
    pub custom_fields: Option<Value>,
}

/// What to change of an asset: what is absent stays, `null` clears. `attributes` and `customFields` merge by key, where
/// `null` removes a key.
#[derive(Debug, Clone, Default, InputObject)]
pub struct UpdateAssetInput {
    /// Its name, up to 255 characters.
    pub name: MaybeUndefined<String>,
    /// What it is used for.
    pub environment: MaybeUndefined<Environment>,
    /// Its id in the system it comes from; unique in the organization.
    pub external_id: MaybeUndefined<String>,
    /// Where it is.
    pub location: MaybeUndefined<String>,
    /// What there is to say about it, up to 4096 characters.
    pub description: MaybeUndefined<String>,
    /// Who answers for it: a member of the organization.
    pub owner: MaybeUndefined<UserId>,
    /// Its tags: these and no others.
    pub tags: MaybeUndefined<Vec<TagId>>,
    /// What is known of it: an object, merged by attribute.
    pub attributes: MaybeUndefined<Value>,
    /// What else to keep: an object, merged by name.
    pub custom_fields: MaybeUndefined<Value>,
}

const SELECT: &str =
    "SELECT id, code, external_id, name, type, lifecycle_state, environment, location, description,
    owner_id, attributes, sources, custom_fields, created_at, updated_at FROM asset";

impl Asset {
    /// The asset, or `None`.
    pub async fn find(tx: &Tx, id: AssetId) -> Result<Option<Self>> {
        tx.opt(&format!("{SELECT} WHERE id = $1"), &[&id]).await
    }

    /// The asset of that short code, or `None`.
    pub async fn find_by_code(tx: &Tx, code: &str) -> Result<Option<Self>> {
        if code.contains('\0') {
            return Ok(None); // Postgres has no such text, and refuses it as a parameter.
        }
        tx.opt(&format!("{SELECT} WHERE code = $1"), &[&code.to_uppercase()]).await
    }

    /// Those that there are of these.
    pub async fn of_ids(tx: &Tx, ids: &[AssetId]) -> Result<Vec<Self>> {
        tx.all(&format!("{SELECT} WHERE id = ANY($1)"), &[&ids]).await
    }

    /// A page of those that the filter lets through.
    pub async fn list(
        tx: &Tx,
        filter: &AssetFilter,
        order: AssetOrder,
        page: &PageRequest,
    ) -> Result<Page<Self>> {
        let values = FilterValues::of(filter)?;
        values.listing().page(tx, SELECT, order.sql(), page).await
    }

    /// How many the filter lets through.
    pub async fn count(tx: &Tx, filter: &AssetFilter) -> Result<i64> {
        FilterValues::of(filter)?.listing().count(tx, "asset").await
    }

    /// Its place in a list of that order.
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

    /// Adds one.
    pub async fn create(tx: &Tx, input: &CreateAssetInput, now: DateTime<Utc>) -> Result<Self> {
        let mut faults = Vec::new();
        let blank = Draft::new(input.asset_type, now);
        let mut draft = Patch::of_new(input).apply(&blank, Provenance::declared(now), &mut faults);
        draft.asset.lifecycle_state = input.lifecycle_state.unwrap_or(LifecycleState::Active);
        draft.asset.environment = input.environment.unwrap_or(Environment::Prod);
        if !faults.is_empty() {
            return Err(Error::Invalid(faults).within("input"));
        }
        let names = Draft::tag_names(tx, iter::once(&draft)).await?;
        insert_all(tx, slice::from_mut(&mut draft), &names, now).await?;
        tx.emit(Event::changed(tx.org(), draft.asset.id));
        Ok(draft.asset)
    }

    /// Changes what the patch gives.
    pub async fn update(
        tx: &Tx,
        id: AssetId,
        patch: &UpdateAssetInput,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let before = Self::lock(tx, id).await?;
        let mut faults = Vec::new();
        let after = Patch::of_change(patch).apply(&before, Provenance::declared(now), &mut faults);
        if !faults.is_empty() {
            return Err(Error::Invalid(faults).within("input"));
        }
        Self::store(tx, Change { action: "asset.updated", before, after }, now).await
    }

    /// Moves it along its life.
    ///
    /// # Errors
    /// `Conflict` for a move that is not legal, naming those that are.
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

    /// Deletes the asset, if its life is over. Outside of inventory, call `compliance::asset_deletion::delete_asset`, which
    /// also deletes the asset's posture and findings.
    pub async fn delete(tx: &Tx, id: AssetId, now: DateTime<Utc>) -> Result<()> {
        Self::prepare_deletion(tx, id, now).await?.finish(tx, now).await
    }

    /// Locks the asset's row, if its life is over, and takes its dependencies and its custody from it.
    ///
    /// # Errors
    /// `NotFound`, and `Conflict` while the asset is in operation or has too many dependencies.
    pub(crate) async fn prepare_deletion(
        tx: &Tx,
        id: AssetId,
        now: DateTime<Utc>,
    ) -> Result<Deletion> {
        let draft = Self::lock(tx, id).await?;
        let state = draft.asset.lifecycle_state;
        if state.is_in_operation() {
            return Err(Error::Conflict(format!(
                "the asset is {}: only what is RETIRED or DISPOSED can be deleted, so call setAssetLifecycle first",
                state.as_str()
            )));
        }
        let names = Draft::tag_names(tx, iter::once(&draft)).await?;
        Dependency::remove_all_of(tx, id, now).await?;
        Custody::end_of(tx, id, now).await?;
        Ok(Deletion { id, snapshot: draft.snapshot(&names) })
    }

    async fn lock(tx: &Tx, id: AssetId) -> Result<Draft> {
        let found = Draft::lock_all(tx, &[id]).await?;
        found.into_iter().next().ok_or_else(|| Error::not_found("asset", id))
    }

    /// Writes what differs, and nothing where nothing does.
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

/// An asset about to be deleted: nothing but its own row is left of it.
#[must_use = "the asset is deleted by finishing"]
pub(crate) struct Deletion {
    id: AssetId,
    snapshot: Value,
}

impl Deletion {
    /// Deletes the row, and says so.
    pub(crate) async fn finish(self, tx: &Tx, now: DateTime<Utc>) -> Result<()> {
        tx.exec("DELETE FROM asset WHERE id = $1", &[&self.id]).await?;
        Entry::deleted("asset.deleted", self.id, self.snapshot).record(tx, now).await?;
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
