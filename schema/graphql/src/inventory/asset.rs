//! Assets: the GraphQL type, the queries and the mutations.

use std::{collections::HashMap, sync::Arc};

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
    document::policy::{FieldPolicy, Policy},
    inventory::change::{self, Change},
    inventory::tag::TagsOfAsset,
    request::{
        context::{ContextExt, RequestScope},
        error::{Error, ErrorCode, Result},
        loader::{Batch, Load},
        node::Identified,
        page::{Connection, wants_total},
        row::{Row, rows},
    },
};

/// Policies of the fields that compute or that read every row.
pub(crate) const POLICIES: &[FieldPolicy] = &[
    FieldPolicy { on: "Query", field: "assets", policies: &[Policy::TextFilter] },
    FieldPolicy { on: "Asset", field: "qrPng", policies: &[Policy::Weight(500)] },
    FieldPolicy { on: "Asset", field: "qrSvg", policies: &[Policy::Weight(500)] },
];

/// Fields that another module adds to the GraphQL type `Asset`, such as custody or compliance. `E` is the entity of
/// that module. The module implements this trait for [`Asset`] and owns the fields, so that this module depends on none
/// of the modules that add fields.
pub(crate) trait AddedFields<E> {
    /// Object with the added fields. The object's own name does not appear in the schema.
    type Fields: ObjectType;

    /// Returns the object with the added fields for this asset.
    fn added_fields(&self) -> Self::Fields;
}

/// An asset: a host, network device, service, software licence or cloud resource. Shared, because a document can reach
/// one asset along thousands of paths, and an asset may hold many kilobytes.
pub(crate) struct Asset(pub(crate) Arc<asset::Asset>);

impl From<asset::Asset> for Asset {
    fn from(asset: asset::Asset) -> Self {
        Self(Arc::new(asset))
    }
}

/// An asset: a host, network device, service, software licence or cloud resource. Requires `ASSET_READ`.
#[Object(directive = requires::apply(AssetRead))]
impl Asset {
    #[graphql(flatten)]
    async fn row(&self) -> &asset::Asset {
        &self.0
    }

    /// Facts of the asset, ordered by key: stored and derived attribute values, with source and time.
    async fn facts(&self, ctx: &Context<'_>) -> Vec<Fact> {
        self.0.facts(ctx.now())
    }

    /// Tags of the asset, ordered by name.
    async fn tags(&self, ctx: &Context<'_>) -> Result<Vec<Row<Tag>>> {
        Ok(rows(ctx.load::<TagsOfAsset>(self.0.id).await?.unwrap_or_default()))
    }

    /// The user who is responsible for the asset; null if there is none.
    async fn owner(&self, ctx: &Context<'_>) -> Result<Option<User>> {
        let Some(owner) = self.0.owner_id else { return Ok(None) };
        Ok(ctx.load::<UserById>(owner).await?.map(User))
    }

    #[graphql(flatten)]
    async fn dependencies(&self) -> <Self as AddedFields<entity::Dependency>>::Fields {
        AddedFields::<entity::Dependency>::added_fields(self)
    }

    #[graphql(flatten)]
    async fn custodies(&self) -> <Self as AddedFields<entity::Custody>>::Fields {
        AddedFields::<entity::Custody>::added_fields(self)
    }

    /// Changes of the asset, newest first: time, actor and key paths. The values are in `auditEntries`.
    async fn changes(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Page size, 1 to 100; default 50.")] first: Option<i32>,
        #[graphql(desc = "Cursor after which the page starts.")] after: Option<String>,
    ) -> Result<Connection<Change>> {
        change::changes(ctx, self.0.id, first, after).await
    }

    #[graphql(flatten)]
    async fn compliance(&self) -> <Self as AddedFields<entity::Finding>>::Fields {
        AddedFields::<entity::Finding>::added_fields(self)
    }

    /// QR code of the asset's short code, as an SVG document for a label of any size.
    async fn qr_svg(&self, ctx: &Context<'_>) -> String {
        ctx.scope().pace.check().await;
        label::svg(&self.0.code)
    }

    /// QR code of the asset's short code, as a PNG image in a `data:` URL.
    async fn qr_png(&self, ctx: &Context<'_>) -> String {
        ctx.scope().pace.check().await;
        label::png_data_url(&self.0.code)
    }
}

/// Root fields that read assets.
#[derive(Default)]
pub(crate) struct AssetQuery;

#[Object]
impl AssetQuery {
    /// The asset with this id or short code; null if there is none. Requires `ASSET_READ`.
    #[graphql(directive = requires::apply(AssetRead))]
    async fn asset(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The asset's id; give either this or `code`.")] id: Option<AssetId>,
        #[graphql(desc = "The asset's short code, in upper or lower case.")] code: Option<String>,
    ) -> Result<Option<Asset>> {
        let tx = ctx.read().await?;
        let found = match (id, code) {
            (Some(id), None) => asset::Asset::find(&tx, id).await?,
            (None, Some(code)) => asset::Asset::find_by_code(&tx, &code).await?,
            (None, None) | (Some(_), Some(_)) => {
                return Err(Error::new(ErrorCode::Validation, "Give either id or code."));
            }
        };
        Ok(found.map(Asset::from))
    }

    /// The organization's assets, newest first by default. Requires `ASSET_READ`.
    #[graphql(directive = requires::apply(AssetRead))]
    #[expect(clippy::too_many_arguments, reason = "the arguments of a Relay connection")]
    async fn assets(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Filter for the assets; default all assets.")] filter: Option<AssetFilter>,
        #[graphql(desc = "Order of the list; default newest first.")] order_by: Option<AssetOrder>,
        #[graphql(desc = "Page size, 1 to 100; default 50.")] first: Option<i32>,
        #[graphql(desc = "Cursor after which the page starts.")] after: Option<String>,
        #[graphql(desc = "Page size from the end, 1 to 100.")] last: Option<i32>,
        #[graphql(desc = "Cursor before which the page ends.")] before: Option<String>,
    ) -> Result<Connection<Asset>> {
        let (filter, order) = (filter.unwrap_or_default(), order_by.unwrap_or_default());
        let keys = &ctx.services().cursors;
        let scope = CursorScope::new(ctx.viewer()?.org, "assets", &(&filter, order));
        let request = PageArgs { first, after, last, before }.check(keys, &scope)?;
        let statements = async {
            let tx = ctx.read().await?;
            let counting: OptionFuture<_> =
                wants_total(ctx).then(|| asset::Asset::count(&tx, &filter)).into();
            let (page, total) =
                tokio::join!(asset::Asset::list(&tx, &filter, order, &request), counting);
            Ok::<_, Error>((page?, total.transpose()?))
        };
        let (page, total) = if filter.text.is_some() {
            ctx.scope().filter_text(statements).await??
        } else {
            statements.await?
        };
        Ok(Connection::new(page, keys, &scope, total, |asset| asset.position(order), Asset::from))
    }
}

/// Root fields that change assets.
#[derive(Default)]
pub(crate) struct AssetMutation;

#[Object]
impl AssetMutation {
    /// Adds an asset to the inventory. Requires `ASSET_WRITE`.
    #[graphql(directive = requires::apply(AssetWrite))]
    async fn create_asset(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Values of the new asset.")] input: CreateAssetInput,
    ) -> Result<Asset> {
        let tx = ctx.write().await?;
        let asset = asset::Asset::create(&tx, &input, ctx.now()).await?;
        tx.commit().await?;
        Ok(asset.into())
    }

    /// Changes an asset. Absent fields stay unchanged. Requires `ASSET_WRITE`.
    #[graphql(directive = requires::apply(AssetWrite))]
    async fn update_asset(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The asset's id, beginning `ast_`.")] id: AssetId,
        #[graphql(desc = "Changes to the asset.")] input: UpdateAssetInput,
    ) -> Result<Asset> {
        let tx = ctx.write().await?;
        let asset = asset::Asset::update(&tx, id, &input, ctx.now()).await?;
        tx.commit().await?;
        Ok(asset.into())
    }

    /// Changes an asset's lifecycle state. Fails with `CONFLICT` if the transition is not legal; the message lists the
    /// legal next states. Requires `ASSET_WRITE`.
    #[graphql(directive = requires::apply(AssetWrite))]
    async fn set_asset_lifecycle(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The asset's id, beginning `ast_`.")] id: AssetId,
        #[graphql(desc = "The new lifecycle state.")] state: LifecycleState,
    ) -> Result<Asset> {
        let tx = ctx.write().await?;
        let asset = asset::Asset::set_lifecycle(&tx, id, state, ctx.now()).await?;
        tx.commit().await?;
        Ok(asset.into())
    }

    /// Deletes an asset in the state `RETIRED` or `DISPOSED`. Fails with `CONFLICT` in other states. Requires
    /// `ASSET_DELETE`.
    #[graphql(directive = requires::apply(AssetDelete))]
    async fn delete_asset(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The asset's id, beginning `ast_`.")] id: AssetId,
    ) -> Result<AssetId> {
        let tx = ctx.write().await?;
        delete_asset(&tx, id, ctx.now()).await?;
        tx.commit().await?;
        Ok(id)
    }
}

/// Returns the asset with this id.
///
/// # Errors
/// `NotFound` if the asset was deleted between two statements of the request.
pub(crate) async fn asset_of(ctx: &Context<'_>, id: AssetId) -> Result<Asset> {
    let found = ctx.load::<AssetById>(id).await?;
    found.map(Asset).ok_or_else(|| domain::Error::not_found("asset", id).into())
}

/// Batch loader of assets by id.
pub(crate) struct AssetById;

impl Batch for AssetById {
    type Key = AssetId;
    type Row = Arc<asset::Asset>;

    async fn load(scope: &RequestScope, ids: &[AssetId]) -> Result<HashMap<AssetId, Self::Row>> {
        let assets = asset::Asset::of_ids(&*scope.read().await?, ids).await?;
        Ok(assets.into_iter().map(|asset| (asset.id, Arc::new(asset))).collect())
    }
}

impl Identified for Asset {
    type Entity = entity::Asset;

    const REQUIRES: Option<Permission> = Some(AssetRead);

    fn row_id(&self) -> Id<entity::Asset> {
        self.0.id
    }

    async fn find(ctx: &Context<'_>, id: Id<entity::Asset>) -> Result<Option<Self>> {
        Ok(asset::Asset::find(&*ctx.read().await?, id).await?.map(Self::from))
    }
}
