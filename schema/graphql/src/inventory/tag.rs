//! Tags: what assets are grouped by.

use async_graphql::{Context, Object};
use domain::{
    access::{
        directive::requires,
        permission::Permission::{AssetRead, AssetWrite},
    },
    entity::TagId,
    inventory::tag::Tag,
};

use crate::request::{context::ContextExt, error::Result};

/// Queries on tags.
#[derive(Default)]
pub(crate) struct TagQuery;

#[Object]
impl TagQuery {
    /// The organization's tags, by name. Takes `ASSET_READ`.
    #[graphql(directive = requires::apply(AssetRead))]
    async fn tags(&self, ctx: &Context<'_>) -> Result<Vec<Tag>> {
        Ok(Tag::list(&*ctx.read().await?).await?)
    }
}

/// Mutations of tags.
#[derive(Default)]
pub(crate) struct TagMutation;

#[Object]
impl TagMutation {
    /// Adds a tag. Takes `ASSET_WRITE`.
    #[graphql(directive = requires::apply(AssetWrite))]
    async fn create_tag(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Its name, up to 64 characters without commas and semicolons.")]
        name: String,
        #[graphql(desc = "What it is shown in: # and six hexadecimal digits.")] color: Option<
            String,
        >,
    ) -> Result<Tag> {
        let tx = ctx.write().await?;
        let tag = Tag::create(&tx, &name, color.as_deref(), ctx.now()).await?;
        tx.commit().await?;
        Ok(tag)
    }

    /// Takes a tag from all assets, up to 10,000, and away. Takes `ASSET_WRITE`.
    #[graphql(directive = requires::apply(AssetWrite))]
    async fn delete_tag(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which one.")] id: TagId,
    ) -> Result<TagId> {
        let tx = ctx.write().await?;
        Tag::delete(&tx, id, ctx.now()).await?;
        tx.commit().await?;
        Ok(id)
    }
}
