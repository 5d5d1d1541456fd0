//! Changes to an asset. The API and imports apply the same rules.
//!
//! Errors carry the field names of the API. An import translates these names to the columns of its file.

use std::collections::BTreeSet;

use async_graphql::MaybeUndefined::{self, Null, Undefined};
use serde_json::{Value, json};

use super::{
    AssetType, CreateAssetInput, Environment, LifecycleState, UpdateAssetInput,
    fact::{self, Provenance, Sources},
    object,
    store::Draft,
};
use crate::base::{
    entity::{TagId, UserId},
    error::FieldError,
    text::{self, TextLimits},
};

/// Maximum number of tags per asset.
const MAX_TAGS: usize = 50;

/// Changes to an asset: absent fields stay unchanged, and `null` clears a field.
#[derive(Debug, Clone, Default)]
pub(crate) struct Patch {
    pub(crate) name: MaybeUndefined<String>,
    /// The asset's type; a type other than the current one is an error.
    pub(crate) asset_type: Option<AssetType>,
    pub(crate) lifecycle_state: Option<LifecycleState>,
    pub(crate) environment: MaybeUndefined<Environment>,
    pub(crate) external_id: MaybeUndefined<String>,
    pub(crate) location: MaybeUndefined<String>,
    pub(crate) description: MaybeUndefined<String>,
    pub(crate) owner: MaybeUndefined<UserId>,
    /// Complete set of the asset's tags; tags that are not listed are removed.
    pub(crate) tags: MaybeUndefined<BTreeSet<TagId>>,
    /// Attribute values, merged by key.
    pub(crate) attributes: MaybeUndefined<Value>,
    /// Custom fields, merged by key.
    pub(crate) custom_fields: MaybeUndefined<Value>,
}

impl Patch {
    pub(super) fn from_create(input: &CreateAssetInput) -> Self {
        let given = |text: &Option<String>| text.clone().map_or(Undefined, MaybeUndefined::Value);
        Self {
            name: MaybeUndefined::Value(input.name.clone()),
            asset_type: None,
            lifecycle_state: None,
            environment: Undefined,
            external_id: given(&input.external_id),
            location: given(&input.location),
            description: given(&input.description),
            owner: input.owner.map_or(Undefined, MaybeUndefined::Value),
            tags: input
                .tags
                .as_ref()
                .map_or(Undefined, |tags| MaybeUndefined::Value(tag_set(tags))),
            attributes: input.attributes.clone().map_or(Undefined, MaybeUndefined::Value),
            custom_fields: input.custom_fields.clone().map_or(Undefined, MaybeUndefined::Value),
        }
    }

    pub(super) fn from_update(input: &UpdateAssetInput) -> Self {
        Self {
            name: input.name.clone(),
            asset_type: None,
            lifecycle_state: None,
            environment: input.environment,
            external_id: input.external_id.clone(),
            location: input.location.clone(),
            description: input.description.clone(),
            owner: input.owner,
            tags: input.tags.clone().map_value(|tags| tag_set(&tags)),
            attributes: input.attributes.clone(),
            custom_fields: input.custom_fields.clone(),
        }
    }

    /// Returns the asset after the change. Changed facts get the source and time in `provenance`. Adds one error to
    /// `faults` for each invalid field; the returned asset must then not be stored.
    pub(crate) fn apply(
        &self,
        before: &Draft,
        provenance: Provenance,
        faults: &mut Vec<FieldError>,
    ) -> Draft {
        let mut after = before.clone();
        let asset = &mut after.asset;
        match &self.name {
            Undefined => {}
            Null => faults.push(FieldError::new("name", "cannot be cleared")),
            MaybeUndefined::Value(name) => {
                asset.name = text::check("name", name, text::NAME, faults);
            }
        }
        if let Some(asset_type) = self.asset_type
            && asset_type != asset.asset_type
        {
            let message = format!(
                "is already {}, and an asset's type cannot change",
                asset.asset_type.as_str()
            );
            faults.push(FieldError::new("type", message));
        }
        if let Some(state) = self.lifecycle_state {
            match asset.lifecycle_state.check_next(state) {
                Ok(()) => asset.lifecycle_state = state,
                Err(message) => faults.push(FieldError::new("lifecycleState", message)),
            }
        }
        match self.environment {
            Undefined => {}
            Null => faults.push(FieldError::new("environment", "cannot be cleared")),
            MaybeUndefined::Value(environment) => asset.environment = environment,
        }
        let texts = [
            (&self.external_id, text::NAME, "externalId", &mut asset.external_id),
            (&self.location, text::NAME, "location", &mut asset.location),
            (&self.description, text::DESCRIPTION, "description", &mut asset.description),
        ];
        for (given, rule, path, field) in texts {
            set_text(given, rule, path, field, faults);
        }
        match self.owner {
            Undefined => {}
            Null => asset.owner_id = None,
            MaybeUndefined::Value(owner) => asset.owner_id = Some(owner),
        }
        match &self.attributes {
            Undefined => {}
            Null => (asset.attributes, asset.sources) = (json!({}), Sources::default()),
            MaybeUndefined::Value(changes) => {
                let current = (&asset.attributes, &asset.sources);
                let (attributes, sources) = fact::merge(current, changes, provenance, faults);
                object::check_size("attributes", &attributes, faults);
                (asset.attributes, asset.sources) = (attributes, sources);
            }
        }
        match &self.custom_fields {
            Undefined => {}
            Null => asset.custom_fields = json!({}),
            MaybeUndefined::Value(changes) => {
                asset.custom_fields =
                    object::merge("customFields", &asset.custom_fields, changes, faults);
            }
        }
        match &self.tags {
            Undefined => {}
            Null => after.tags = BTreeSet::new(),
            MaybeUndefined::Value(tags) => {
                if tags.len() > MAX_TAGS {
                    let message =
                        format!("has {} tags, at most {MAX_TAGS} are allowed", tags.len());
                    faults.push(FieldError::new("tags", message));
                }
                after.tags.clone_from(tags);
            }
        }
        after
    }
}

fn tag_set(tags: &[TagId]) -> BTreeSet<TagId> {
    tags.iter().copied().collect()
}

fn set_text(
    given: &MaybeUndefined<String>,
    rule: TextLimits,
    path: &str,
    field: &mut Option<String>,
    faults: &mut Vec<FieldError>,
) {
    match given {
        Undefined => {}
        Null => *field = None,
        MaybeUndefined::Value(text) => {
            *field = text::check_optional(path, Some(text), rule, faults);
        }
    }
}
