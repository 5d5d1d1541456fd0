//! Assets: the view, the queries, the mutations.

use std::collections::HashMap;

use async_graphql::{Context, Object, ObjectType};
use domain::{
    Id,
    access::{
        directive::requires,
        permission::Permission::{self, AssetDelete, AssetRead, AssetWrite},
    },
    base::page::{CursorScope, PageArgs},
    compliance::asset_deletion::delete_asset,
    entity::{self, AssetId},
    inventory::{
        asset::{
            self, AssetFilter, AssetOrder, CreateAssetInput, Fact, LifecycleState, UpdateAssetInput,
        },
        label,
        tag::Tag,
    },
};
use futures_util::future::OptionFuture;

use crate::{
    access::user::User,
    access::user::UserById,
    inventory::change::{self, Change},
    inventory::tag::TagsOfAsset,
    request::{
        context::{ContextExt, RequestScope},
        error::{Error, ErrorCode, Result},
        loader::{Batch, Load},
        node::Identified,
        page::{Connection, wants_total},
    },
};

/// Fields of an asset that belong to another noun, named by its entity. The noun implements this beside its own view, which
/// refers to assets: so an asset names nothing that is built on it, and other wings can add to it.
pub(crate) trait Extended<E> {
    /// The object whose fields are the asset's as well; its name never shows.
    type Fields: ObjectType;

    /// These fields of this asset.
    fn extended(&self) -> Self::Fields;
}

/// Something we operate.
pub(crate) struct Asset(pub(crate) asset::Asset);

/// Something we operate. Takes `ASSET_READ`.
#[Object(directive = requires::apply(AssetRead))]
impl Asset {
    #[graphql(flatten)]
    async fn row(&self) -> &asset::Asset {
        &self.0
    }

    /// What is known of it, by key, with what follows from it: each with how we know it and since when.
    async fn facts(&self, ctx: &Context<'_>) -> Vec<Fact> {
        self.0.facts(ctx.now())
    }

    /// Its tags, by name.
    async fn tags(&self, ctx: &Context<'_>) -> Result<Vec<Tag>> {
        Ok(ctx.load::<TagsOfAsset>(self.0.id).await?.unwrap_or_default())
    }

    /// Who answers for it.
    async fn owner(&self, ctx: &Context<'_>) -> Result<Option<User>> {
        let Some(owner) = self.0.owner_id else { return Ok(None) };
        Ok(ctx.load::<UserById>(owner).await?.map(User))
    }

    #[graphql(flatten)]
    async fn dependencies(&self) -> <Self as Extended<entity::Dependency>>::Fields {
        Extended::<entity::Dependency>::extended(self)
    }

    #[graphql(flatten)]
    async fn custodies(&self) -> <Self as Extended<entity::Custody>>::Fields {
        Extended::<entity::Custody>::extended(self)
    }

    /// What changed of it, newest first: by whom and where, without values, which only `auditEntries` has.
    async fn changes(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many from the start, up to 100; 50 without it.")] first: Option<i32>,
        #[graphql(desc = "After this cursor.")] after: Option<String>,
    ) -> Result<Connection<Change>> {
        change::changes(ctx, self.0.id, first, after).await
    }

    #[graphql(flatten)]
    async fn compliance(&self) -> <Self as Extended<entity::Finding>>::Fields {
        Extended::<entity::Finding>::extended(self)
    }

    /// The QR code of its short code as an SVG document, for a label of any size.
    async fn qr_svg(&self) -> String {
        label::svg(&self.0.code)
    }

    /// The QR code of its short code as a PNG image, in a `data:` URL.
    async fn qr_png(&self) -> String {
        label::png_data_url(&self.0.code)
    }
}

/// Queries on assets.
#[derive(Default)]
pub(crate) struct AssetQuery;

#[Object]
impl AssetQuery {
    /// One asset, by its id or by its short code. Takes `ASSET_READ`.
    #[graphql(directive = requires::apply(AssetRead))]
    async fn asset(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Its id; give this or `code`.")] id: Option<AssetId>,
        #[graphql(desc = "Its short code, whatever its case.")] code: Option<String>,
    ) -> Result<Option<Asset>> {
        let tx = ctx.read().await?;
        let found = match (id, code) {
            (Some(id), None) => asset::Asset::find(&tx, id).await?,
            (None, Some(code)) => asset::Asset::find_by_code(&tx, &code).await?,
            (None, None) | (Some(_), Some(_)) => {
                return Err(Error::new(ErrorCode::Validation, "Give either id or code."));
            }
        };
        Ok(found.map(Asset))
    }

    /// The organization's assets, newest first unless ordered otherwise. Takes `ASSET_READ`.
    #[graphql(directive = requires::apply(AssetRead))]
    #[expect(clippy::too_many_arguments, reason = "the arguments of a Relay connection")]
    async fn assets(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which ones; all without it.")] filter: Option<AssetFilter>,
        #[graphql(desc = "In which order; newest first without it.")] order_by: Option<AssetOrder>,
        #[graphql(desc = "How many from the start, up to 100; 50 without it.")] first: Option<i32>,
        #[graphql(desc = "After this cursor.")] after: Option<String>,
        #[graphql(desc = "How many from the end, up to 100.")] last: Option<i32>,
        #[graphql(desc = "Before this cursor.")] before: Option<String>,
    ) -> Result<Connection<Asset>> {
        let (filter, order) = (filter.unwrap_or_default(), order_by.unwrap_or_default());
        let keys = &ctx.services().cursors;
        let scope = CursorScope::new(ctx.viewer()?.org, "assets", &(&filter, order));
        let request = PageArgs { first, after, last, before }.check(keys, &scope)?;
        let tx = ctx.read().await?;
        let counting: OptionFuture<_> =
            wants_total(ctx).then(|| asset::Asset::count(&tx, &filter)).into();
        let (page, total) =
            tokio::join!(asset::Asset::list(&tx, &filter, order, &request), counting);
        let total = total.transpose()?;
        Ok(Connection::new(page?, keys, &scope, total, |asset| asset.position(order), Asset))
    }
}

/// Mutations of assets.
#[derive(Default)]
pub(crate) struct AssetMutation;

#[Object]
impl AssetMutation {
    /// Adds an asset. Takes `ASSET_WRITE`.
    #[graphql(directive = requires::apply(AssetWrite))]
    async fn create_asset(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The asset.")] input: CreateAssetInput,
    ) -> Result<Asset> {
        let tx = ctx.write().await?;
        let asset = asset::Asset::create(&tx, &input, ctx.now()).await?;
        tx.commit().await?;
        Ok(Asset(asset))
    }

    /// Changes an asset; only what is given changes. Takes `ASSET_WRITE`.
    #[graphql(directive = requires::apply(AssetWrite))]
    async fn update_asset(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which one.")] id: AssetId,
        #[graphql(desc = "What to change.")] input: UpdateAssetInput,
    ) -> Result<Asset> {
        let tx = ctx.write().await?;
        let asset = asset::Asset::update(&tx, id, &input, ctx.now()).await?;
        tx.commit().await?;
        Ok(Asset(asset))
    }

    /// Moves an asset along its life; an illegal move is a conflict that names the legal ones. Takes `ASSET_WRITE`.
    #[graphql(directive = requires::apply(AssetWrite))]
    async fn set_asset_lifecycle(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which one.")] id: AssetId,
        #[graphql(desc = "Where to.")] state: LifecycleState,
    ) -> Result<Asset> {
        let tx = ctx.write().await?;
        let asset = asset::Asset::set_lifecycle(&tx, id, state, ctx.now()).await?;
        tx.commit().await?;
        Ok(Asset(asset))
    }

    /// Deletes an asset that is retired or disposed. Takes `ASSET_DELETE`.
    #[graphql(directive = requires::apply(AssetDelete))]
    async fn delete_asset(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which one.")] id: AssetId,
    ) -> Result<AssetId> {
        let tx = ctx.write().await?;
        delete_asset(&tx, id, ctx.now()).await?;
        tx.commit().await?;
        Ok(id)
    }
}

/// The asset that a row names. It may be deleted between two statements of a request.
pub(crate) async fn asset_of(ctx: &Context<'_>, id: AssetId) -> Result<Asset> {
    let found = ctx.load::<AssetById>(id).await?;
    found.map(Asset).ok_or_else(|| domain::Error::not_found("asset", id).into())
}

/// An asset by id.
pub(crate) struct AssetById;

impl Batch for AssetById {
    type Key = AssetId;
    type Row = asset::Asset;

    async fn load(scope: &RequestScope, ids: &[AssetId]) -> Result<HashMap<AssetId, asset::Asset>> {
        let assets = asset::Asset::of_ids(&*scope.read().await?, ids).await?;
        Ok(assets.into_iter().map(|asset| (asset.id, asset)).collect())
    }
}

impl Identified for Asset {
    type Entity = entity::Asset;

    const REQUIRES: Option<Permission> = Some(AssetRead);

    fn row_id(&self) -> Id<entity::Asset> {
        self.0.id
    }

    async fn find(ctx: &Context<'_>, id: Id<entity::Asset>) -> Result<Option<Self>> {
        Ok(asset::Asset::find(&*ctx.read().await?, id).await?.map(Self))
    }
}
