//! Tags, by which people group assets: the query and the mutations.

use std::collections::HashMap;

use async_graphql::{Context, Object};
pub(crate) use domain::inventory::tag::Tag;
use domain::{
    Id,
    access::{
        directive::requires,
        permission::Permission::{self, AssetRead, AssetWrite},
    },
    entity::{self, AssetId, TagId},
};

use crate::request::{
    context::{ContextExt, RequestScope},
    error::Result,
    loader::Batch,
    node::Identified,
    row::{Row, rows},
};

/// Root fields that read tags.
#[derive(Default)]
pub(crate) struct TagQuery;

#[Object]
impl TagQuery {
    /// The organization's tags, ordered by name. Requires `ASSET_READ`.
    #[graphql(directive = requires::apply(AssetRead))]
    async fn tags(&self, ctx: &Context<'_>) -> Result<Vec<Row<Tag>>> {
        Ok(rows(Tag::list(&*ctx.read().await?).await?))
    }
}

/// Root fields that change tags.
#[derive(Default)]
pub(crate) struct TagMutation;

#[Object]
impl TagMutation {
    /// Adds a tag to the organization. Requires `ASSET_WRITE`.
    #[graphql(directive = requires::apply(AssetWrite))]
    async fn create_tag(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The tag's name, up to 64 characters, without commas and semicolons.")]
        name: String,
        #[graphql(
            desc = "The tag's display colour: # and six hexadecimal digits; default #64748b."
        )]
        color: Option<String>,
    ) -> Result<Tag> {
        let tx = ctx.write().await?;
        let tag = Tag::create(&tx, &name, color.as_deref(), ctx.now()).await?;
        tx.commit().await?;
        Ok(tag)
    }

    /// Deletes a tag and removes the tag from all assets. Fails with `CONFLICT` if more than 10,000 assets have the
    /// tag. Requires `ASSET_WRITE`.
    #[graphql(directive = requires::apply(AssetWrite))]
    async fn delete_tag(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The tag's id, beginning `tag_`.")] id: TagId,
    ) -> Result<TagId> {
        let tx = ctx.write().await?;
        Tag::delete(&tx, id, ctx.now()).await?;
        tx.commit().await?;
        Ok(id)
    }
}

/// Batch loader of tags by id.
pub(crate) struct TagById;

impl Batch for TagById {
    type Key = TagId;
    type Row = Tag;

    async fn load(scope: &RequestScope, ids: &[TagId]) -> Result<HashMap<TagId, Tag>> {
        let tags = Tag::of_ids(&*scope.read().await?, ids).await?;
        Ok(tags.into_iter().map(|tag| (tag.id, tag)).collect())
    }
}

/// Batch loader of tags by asset.
pub(crate) struct TagsOfAsset;

impl Batch for TagsOfAsset {
    type Key = AssetId;
    type Row = Vec<Tag>;

    async fn load(scope: &RequestScope, ids: &[AssetId]) -> Result<HashMap<AssetId, Vec<Tag>>> {
        let mut tags: HashMap<AssetId, Vec<Tag>> = HashMap::new();
        for (asset, tag) in Tag::of_assets(&*scope.read().await?, ids).await? {
            tags.entry(asset).or_default().push(tag);
        }
        Ok(tags)
    }
}

impl Identified for Tag {
    type Entity = entity::Tag;

    const REQUIRES: Option<Permission> = Some(AssetRead);

    fn row_id(&self) -> Id<entity::Tag> {
        self.id
    }

    async fn find(ctx: &Context<'_>, id: Id<entity::Tag>) -> Result<Option<Self>> {
        Ok(Self::find(&*ctx.read().await?, id).await?)
    }
}
