//! Attributes: what can be known of assets.

use async_graphql::Object;
use domain::{
    access::{directive::requires, permission::Permission::AssetRead},
    inventory::attribute::Attribute,
};

/// Queries on attributes.
#[derive(Default)]
pub(crate) struct AttributeQuery;

#[Object]
impl AttributeQuery {
    /// What can be known of an asset, by key. Takes `ASSET_READ`.
    #[graphql(directive = requires::apply(AssetRead))]
    async fn attributes(&self) -> Vec<Attribute> {
        Attribute::all().to_vec()
    }
}
