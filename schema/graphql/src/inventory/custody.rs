//! Custodies (check-out records) of assets: the GraphQL type, the mutations, and the custody fields of assets.

use std::collections::HashMap;

use async_graphql::{Context, Object};
use domain::{
    Id,
    access::{
        directive::requires,
        permission::Permission::{self, AssetRead, AssetWrite},
    },
    base::page::{CursorScope, Page, PageArgs},
    entity::{self, AssetId, UserId},
    inventory::custody,
};
use futures_util::future::OptionFuture;

use crate::{
    access::user::UserById,
    access::{
        actor::{Actor, actor},
        user::User,
    },
    inventory::asset::{AddedFields, Asset, asset_of},
    request::{
        context::{ContextExt, RequestScope},
        error::Result,
        loader::{Batch, Load, Loaded, PageKey, grouped, keyed},
        node::Identified,
        page::{Connection, wants_total},
    },
};

/// A custody: the check-out record of one asset and its holder, from check-out to check-in.
pub(crate) struct Custody(pub(crate) custody::Custody);

/// A custody: the check-out record of one asset and its holder, from check-out to check-in. Requires `ASSET_READ`.
#[Object(directive = requires::apply(AssetRead))]
impl Custody {
    #[graphql(flatten)]
    async fn row(&self) -> &custody::Custody {
        &self.0
    }

    /// The asset that was checked out.
    async fn asset(&self, ctx: &Context<'_>) -> Result<Asset> {
        asset_of(ctx, self.0.asset_id).await
    }

    /// The user to whom the asset was checked out; null if the user is no longer a member of the organization.
    async fn holder(&self, ctx: &Context<'_>) -> Result<Option<User>> {
        Ok(ctx.load::<UserById>(self.0.holder_id).await?.map(User))
    }

    /// The actor who checked the asset out; null if this user or API key no longer exists.
    async fn checked_out_by(&self, ctx: &Context<'_>) -> Result<Option<Actor>> {
        actor(ctx, self.0.checked_out_by).await
    }

    /// The actor who checked the asset in; null while the asset is checked out, and if this user or API key no longer
    /// exists. `checkedInAt` distinguishes the two.
    async fn checked_in_by(&self, ctx: &Context<'_>) -> Result<Option<Actor>> {
        let Some(by) = self.0.checked_in_by else { return Ok(None) };
        actor(ctx, by).await
    }
}

/// Custody fields of [`Asset`].
pub(crate) struct AssetCustodies(AssetId);

impl AddedFields<entity::Custody> for Asset {
    type Fields = AssetCustodies;

    fn added_fields(&self) -> AssetCustodies {
        AssetCustodies(self.0.id)
    }
}

#[Object]
impl AssetCustodies {
    /// The open custody of the asset; null if the asset is not checked out.
    async fn custody(&self, ctx: &Context<'_>) -> Result<Option<Custody>> {
        current(ctx, self.0).await
    }

    /// Custodies of the asset, newest first, including the open one.
    async fn custody_history(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Page size, 1 to 100; default 50.")] first: Option<i32>,
        #[graphql(desc = "Cursor after which the page starts.")] after: Option<String>,
    ) -> Result<Connection<Custody>> {
        history(ctx, self.0, first, after).await
    }
}

/// Returns the open custody of an asset, if any.
async fn current(ctx: &Context<'_>, asset: AssetId) -> Result<Option<Custody>> {
    Ok(ctx.load::<OpenCustody>(asset).await?.map(Custody))
}

/// Returns a page of an asset's custodies, newest first.
async fn history(
    ctx: &Context<'_>,
    asset: AssetId,
    first: Option<i32>,
    after: Option<String>,
) -> Result<Connection<Custody>> {
    let keys = &ctx.services().cursors;
    let scope = CursorScope::new(ctx.viewer()?.org, "custodyHistory", &asset);
    let page = PageArgs { first, after, ..PageArgs::default() }.check(keys, &scope)?;
    let key = PageKey { owner: asset, page, total: wants_total(ctx) };
    let (page, total) = ctx.load::<CustodyPages>(key).await?.unwrap_or((Page::EMPTY, None));
    Ok(Connection::new(page, keys, &scope, total, custody::Custody::position, Custody))
}

/// Root fields that change custody.
#[derive(Default)]
pub(crate) struct CustodyMutation;

#[Object]
impl CustodyMutation {
    /// Checks an asset out to a member. Fails with `CONFLICT` if the asset is checked out already; the message names
    /// the holder. Requires `ASSET_WRITE`.
    #[graphql(directive = requires::apply(AssetWrite))]
    async fn check_out_asset(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The asset's id, beginning `ast_`.")] id: AssetId,
        #[graphql(desc = "The new holder; must be a member of the organization.")] holder: UserId,
        #[graphql(desc = "Notes on the check-out, up to 4096 characters.")] notes: Option<String>,
    ) -> Result<Custody> {
        let tx = ctx.write().await?;
        let notes = notes.as_deref();
        let custody = custody::Custody::check_out(&tx, id, holder, notes, ctx.now()).await?;
        tx.commit().await?;
        Ok(Custody(custody))
    }

    /// Checks an asset in. Fails with `CONFLICT` if the asset is not checked out. Requires `ASSET_WRITE`.
    #[graphql(directive = requires::apply(AssetWrite))]
    async fn check_in_asset(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The asset's id, beginning `ast_`.")] id: AssetId,
        #[graphql(desc = "Notes on the check-in, up to 4096 characters.")] notes: Option<String>,
    ) -> Result<Custody> {
        let tx = ctx.write().await?;
        let custody = custody::Custody::check_in(&tx, id, notes.as_deref(), ctx.now()).await?;
        tx.commit().await?;
        Ok(Custody(custody))
    }
}

/// Batch loader of open custodies by asset.
pub(crate) struct OpenCustody;

impl Batch for OpenCustody {
    type Key = AssetId;
    type Row = custody::Custody;

    async fn load(
        scope: &RequestScope,
        ids: &[AssetId],
    ) -> Result<HashMap<AssetId, custody::Custody>> {
        let open = custody::Custody::open_of(&*scope.read().await?, ids).await?;
        Ok(open.into_iter().map(|custody| (custody.asset_id, custody)).collect())
    }
}

/// Batch loader of pages of custodies by asset.
pub(crate) struct CustodyPages;

impl Batch for CustodyPages {
    type Key = PageKey<AssetId>;
    type Row = Loaded<custody::Custody>;

    async fn load(
        scope: &RequestScope,
        keys: &[PageKey<AssetId>],
    ) -> Result<HashMap<PageKey<AssetId>, Loaded<custody::Custody>>> {
        let tx = scope.read().await?;
        let mut all = HashMap::new();
        for ((page, total), assets) in grouped(keys, PageKey::split) {
            let pages = custody::Custody::of_assets(&tx, &assets, &page).await?;
            let counting: OptionFuture<_> =
                total.then(|| custody::Custody::count_of_assets(&tx, &assets)).into();
            let totals = counting.await.transpose()?;
            all.extend(keyed(pages, totals.as_ref(), &page));
        }
        Ok(all)
    }
}

impl Identified for Custody {
    type Entity = entity::Custody;

    const REQUIRES: Option<Permission> = Some(AssetRead);

    fn row_id(&self) -> Id<entity::Custody> {
        self.0.id
    }

    async fn find(ctx: &Context<'_>, id: Id<entity::Custody>) -> Result<Option<Self>> {
        Ok(custody::Custody::find(&*ctx.read().await?, id).await?.map(Self))
    }
}
