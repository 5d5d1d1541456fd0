//! The query for attributes: the keys and types of the facts that an asset can have.

use async_graphql::Object;
use domain::{
    access::{directive::requires, permission::Permission::AssetRead},
    inventory::attribute::Attribute,
};

/// Root fields that read attributes.
#[derive(Default)]
pub(crate) struct AttributeQuery;

#[Object]
impl AttributeQuery {
    /// The attributes that an asset can have, ordered by key. Requires `ASSET_READ`.
    #[graphql(directive = requires::apply(AssetRead))]
    async fn attributes(&self) -> Vec<Attribute> {
        Attribute::all().to_vec()
    }
}
