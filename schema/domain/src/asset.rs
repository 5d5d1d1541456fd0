//! Something we operate: a host, a device, a service, a licence, a cloud resource. (`asset/query`: which are asked for;
//! `asset/object`: their JSON.)
//!
//! Its life moves along legal transitions only, and it is deleted only from the end of it: deleting is for what was
//! retired, and not a way to lose the history of something that runs. Attributes and custom fields are JSON objects
//! that merge by key on update.
//!
//! Long, because the shape, its two inputs and every write of it stand together: a new field touches all of them.

use async_graphql::{InputObject, MaybeUndefined, SimpleObject};
use chrono::{DateTime, SubsecRound, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use tokio_postgres::Row;

use crate::{
    audit::Entry,
    db::{FromRow, Tx},
    error::{Error, Fault, Result},
    event::Event,
    id::{Entity, Id},
    page::{Page, PageRequest, Place},
    text::{self, text_enum},
    user::User,
};

mod object;
mod query;

use query::FilterValues;
pub use query::{AssetFilter, AssetOrder, AssetOrderField, OrderDirection};

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
    /// Where it may go from here.
    pub const fn next(self) -> &'static [Self] {
        match self {
            Self::Active => &[Self::Maintenance, Self::Retired],
            Self::Provisioning | Self::Maintenance => &[Self::Active, Self::Retired],
            Self::Retired => &[Self::Active, Self::Disposed],
            Self::Disposed => &[],
        }
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
    pub id: Id<Asset>,
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
    pub owner_id: Option<Id<User>>,
    /// What is known of it, by attribute.
    pub attributes: Value,
    /// What else the team keeps of it, by name.
    pub custom_fields: Value,
    /// When it was created here.
    #[serde(skip)]
    pub created_at: DateTime<Utc>,
    /// When it was last changed here.
    #[serde(skip)]
    pub updated_at: DateTime<Utc>,
}

impl Entity for Asset {
    const PREFIX: &'static str = "ast";
    const NAME: &'static str = "asset";
    const KEY: &'static str = "asset";
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
    pub owner: Option<Id<User>>,
    /// What is known of it: an object, by attribute.
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
    pub owner: MaybeUndefined<Id<User>>,
    /// What is known of it: an object, merged by attribute.
    pub attributes: MaybeUndefined<Value>,
    /// What else to keep: an object, merged by name.
    pub custom_fields: MaybeUndefined<Value>,
}

const SELECT: &str =
    "SELECT id, code, external_id, name, type, lifecycle_state, environment, location, description,
    owner_id, attributes, custom_fields, created_at, updated_at FROM asset";

impl Asset {
    /// The asset, or `None`.
    pub async fn find(tx: &Tx, id: Id<Self>) -> Result<Option<Self>> {
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
    pub async fn of_ids(tx: &Tx, ids: &[Id<Self>]) -> Result<Vec<Self>> {
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
    pub fn place(&self, order: AssetOrder) -> Place {
        let value = match order.field {
            AssetOrderField::CreatedAt => String::new(),
            AssetOrderField::UpdatedAt => {
                self.updated_at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
            }
            AssetOrderField::Name => self.name.clone(),
            AssetOrderField::Code => self.code.clone(),
        };
        Place { value, id: self.id.uuid() }
    }

    /// Adds one.
    pub async fn create(tx: &Tx, input: &CreateAssetInput, now: DateTime<Utc>) -> Result<Self> {
        let mut faults = Vec::new();
        let one_line = |text: &Option<String>, path: &str, faults: &mut Vec<Fault>| {
            text::check_optional(path, text.as_deref(), text::NAME, faults)
        };
        let now = now.trunc_subsecs(6); // As Postgres keeps it.
        let mut asset = Self {
            id: Id::new(),
            code: String::new(),
            external_id: one_line(&input.external_id, "input.externalId", &mut faults),
            name: text::check("input.name", &input.name, text::NAME, &mut faults),
            asset_type: input.asset_type,
            lifecycle_state: input.lifecycle_state.unwrap_or(LifecycleState::Active),
            environment: input.environment.unwrap_or(Environment::Prod),
            location: one_line(&input.location, "input.location", &mut faults),
            description: text::check_optional(
                "input.description",
                input.description.as_deref(),
                text::DESCRIPTION,
                &mut faults,
            ),
            owner_id: input.owner,
            attributes: object::merge(
                "input.attributes",
                &json!({}),
                input.attributes.as_ref(),
                &mut faults,
            ),
            custom_fields: object::merge(
                "input.customFields",
                &json!({}),
                input.custom_fields.as_ref(),
                &mut faults,
            ),
            created_at: now,
            updated_at: now,
        };
        if !faults.is_empty() {
            return Err(Error::Invalid(faults));
        }
        // Eight tries of 33 million codes; the last of 10^15.
        for attempt in 0..8 {
            asset.code = code(asset.asset_type, if attempt < 7 { 5 } else { 10 })?;
            let added = tx
                .exec(
                    "INSERT INTO asset (org_id, id, code, external_id, name, type, lifecycle_state, environment, location,
                                        description, owner_id, attributes, custom_fields, created_at, updated_at)
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $14)
                     ON CONFLICT ON CONSTRAINT asset_code_key DO NOTHING",
                    &[
                        &tx.org(),
                        &asset.id,
                        &asset.code,
                        &asset.external_id,
                        &asset.name,
                        &asset.asset_type.as_str(),
                        &asset.lifecycle_state.as_str(),
                        &asset.environment.as_str(),
                        &asset.location,
                        &asset.description,
                        &asset.owner_id,
                        &asset.attributes,
                        &asset.custom_fields,
                        &now,
                    ],
                )
                .await?;
            if added == 1 {
                Entry::created("asset.created", asset.id, &asset.snapshot())
                    .record(tx, now)
                    .await?;
                tx.emit(Event::changed(tx.org(), asset.id));
                return Ok(asset);
            }
        }
        Err(Error::Conflict("no free short code was found: try again".into()))
    }

    /// Changes what the patch gives.
    pub async fn update(
        tx: &Tx,
        id: Id<Self>,
        patch: &UpdateAssetInput,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let before = Self::lock(tx, id).await?;
        let mut faults = Vec::new();
        let mut after = before.clone();
        match &patch.name {
            MaybeUndefined::Undefined => {}
            MaybeUndefined::Null => faults.push(Fault::new("input.name", "cannot be cleared")),
            MaybeUndefined::Value(name) => {
                after.name = text::check("input.name", name, text::NAME, &mut faults);
            }
        }
        match patch.environment {
            MaybeUndefined::Undefined => {}
            MaybeUndefined::Null => {
                faults.push(Fault::new("input.environment", "cannot be cleared"));
            }
            MaybeUndefined::Value(environment) => after.environment = environment,
        }
        for (given, rule, path, field) in [
            (&patch.external_id, text::NAME, "input.externalId", &mut after.external_id),
            (&patch.location, text::NAME, "input.location", &mut after.location),
            (&patch.description, text::DESCRIPTION, "input.description", &mut after.description),
        ] {
            match given {
                MaybeUndefined::Undefined => {}
                MaybeUndefined::Null => *field = None,
                MaybeUndefined::Value(text) => {
                    *field = text::check_optional(path, Some(text), rule, &mut faults);
                }
            }
        }
        match patch.owner {
            MaybeUndefined::Undefined => {}
            MaybeUndefined::Null => after.owner_id = None,
            MaybeUndefined::Value(owner) => after.owner_id = Some(owner),
        }
        for (given, path, field) in [
            (&patch.attributes, "input.attributes", &mut after.attributes),
            (&patch.custom_fields, "input.customFields", &mut after.custom_fields),
        ] {
            match given {
                MaybeUndefined::Undefined => {}
                MaybeUndefined::Null => *field = json!({}),
                MaybeUndefined::Value(changes) => {
                    *field = object::merge(path, field, Some(changes), &mut faults);
                }
            }
        }
        if !faults.is_empty() {
            return Err(Error::Invalid(faults));
        }
        after.store(tx, &before, "asset.updated", now).await
    }

    /// Moves it along its life.
    ///
    /// # Errors
    /// `Conflict` for a move that is not legal, naming those that are.
    pub async fn set_lifecycle(
        tx: &Tx,
        id: Id<Self>,
        state: LifecycleState,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let before = Self::lock(tx, id).await?;
        let from = before.lifecycle_state;
        if from != state && !from.next().contains(&state) {
            let legal = match from.next() {
                [] => "nothing follows it".to_owned(),
                next => format!(
                    "it may become {}",
                    next.iter().map(|state| state.as_str()).collect::<Vec<_>>().join(" or ")
                ),
            };
            return Err(Error::Conflict(format!(
                "the asset is {} and cannot become {}: {legal}",
                from.as_str(),
                state.as_str()
            )));
        }
        Self { lifecycle_state: state, ..before.clone() }
            .store(tx, &before, "asset.lifecycle_changed", now)
            .await
    }

    /// Deletes it, if its life is over.
    pub async fn delete(tx: &Tx, id: Id<Self>, now: DateTime<Utc>) -> Result<()> {
        let asset = Self::lock(tx, id).await?;
        if !matches!(asset.lifecycle_state, LifecycleState::Retired | LifecycleState::Disposed) {
            return Err(Error::Conflict(format!(
                "the asset is {}: only what is RETIRED or DISPOSED can be deleted, so call setAssetLifecycle first",
                asset.lifecycle_state.as_str()
            )));
        }
        tx.exec("DELETE FROM asset WHERE id = $1", &[&id]).await?;
        Entry::deleted("asset.deleted", id, asset.snapshot()).record(tx, now).await?;
        tx.emit(Event::changed(tx.org(), id));
        Ok(())
    }

    async fn lock(tx: &Tx, id: Id<Self>) -> Result<Self> {
        tx.opt(&format!("{SELECT} WHERE id = $1 FOR UPDATE"), &[&id])
            .await?
            .ok_or_else(|| Error::not_found("asset", id))
    }

    /// Writes what differs from `before`, and nothing where nothing does.
    async fn store(
        mut self,
        tx: &Tx,
        before: &Self,
        action: &'static str,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        if self == *before {
            return Ok(self);
        }
        self.updated_at = now.trunc_subsecs(6);
        tx.exec(
            "UPDATE asset SET external_id = $2, name = $3, lifecycle_state = $4, environment = $5, location = $6,
                              description = $7, owner_id = $8, attributes = $9, custom_fields = $10, updated_at = $11
             WHERE id = $1",
            &[
                &self.id,
                &self.external_id,
                &self.name,
                &self.lifecycle_state.as_str(),
                &self.environment.as_str(),
                &self.location,
                &self.description,
                &self.owner_id,
                &self.attributes,
                &self.custom_fields,
                &self.updated_at,
            ],
        )
        .await?;
        Entry::changed(action, self.id, before.snapshot(), self.snapshot()).record(tx, now).await?;
        tx.emit(Event::changed(tx.org(), self.id));
        Ok(self)
    }

    fn snapshot(&self) -> Value {
        serde_json::to_value(self).expect("an asset is plain data")
    }
}

/// A fresh short code: the type's prefix and letters that are not mistaken for each other.
fn code(asset_type: AssetType, length: usize) -> Result<String> {
    const LETTERS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let prefix = match asset_type {
        AssetType::Host => "HST",
        AssetType::NetworkDevice => "NET",
        AssetType::Service => "SVC",
        AssetType::SoftwareLicense => "LIC",
        AssetType::CloudResource => "CLD",
    };
    let random = crate::token::random()?;
    let body: String =
        random.iter().take(length).map(|byte| LETTERS[usize::from(byte % 32)] as char).collect();
    Ok(format!("{prefix}-{body}"))
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn codes_avoid_letters_that_look_alike() {
        let code = code(AssetType::Host, 10).unwrap();
        assert!(code.starts_with("HST-") && code.len() == 14);
        assert!(!code[4..].contains(['I', 'L', 'O', 'U']));
    }
}
