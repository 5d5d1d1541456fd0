//! Who holds an asset: the view, the mutations. And the fields that an asset has of them.

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
    inventory::asset::{Asset, Extended, asset_of},
    request::{
        context::{ContextExt, RequestScope},
        error::Result,
        loader::{Batch, Load, Loaded, PageKey, grouped, keyed},
        node::Identified,
        page::{Connection, wants_total},
    },
};

/// Somebody holding an asset, now or once.
pub(crate) struct Custody(pub(crate) custody::Custody);

/// Somebody holding an asset, now or once. Takes `ASSET_READ`.
#[Object(directive = requires::apply(AssetRead))]
impl Custody {
    #[graphql(flatten)]
    async fn row(&self) -> &custody::Custody {
        &self.0
    }

    /// What is held.
    async fn asset(&self, ctx: &Context<'_>) -> Result<Asset> {
        asset_of(ctx, self.0.asset_id).await
    }

    /// Who holds it.
    async fn holder(&self, ctx: &Context<'_>) -> Result<Option<User>> {
        Ok(ctx.load::<UserById>(self.0.holder_id).await?.map(User))
    }

    /// Who handed it out.
    async fn checked_out_by(&self, ctx: &Context<'_>) -> Result<Option<Actor>> {
        actor(ctx, self.0.checked_out_by).await
    }

    /// Who took it back; null while it is held.
    async fn checked_in_by(&self, ctx: &Context<'_>) -> Result<Option<Actor>> {
        let Some(by) = self.0.checked_in_by else { return Ok(None) };
        actor(ctx, by).await
    }
}

/// Custodies of an asset: fields of [`Asset`].
pub(crate) struct AssetCustodies(AssetId);

impl Extended<entity::Custody> for Asset {
    type Fields = AssetCustodies;

    fn extended(&self) -> AssetCustodies {
        AssetCustodies(self.0.id)
    }
}

#[Object]
impl AssetCustodies {
    /// Who holds it now, if somebody does.
    async fn custody(&self, ctx: &Context<'_>) -> Result<Option<Custody>> {
        current(ctx, self.0).await
    }

    /// Who holds it and who did, newest first.
    async fn custody_history(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many from the start, up to 100; 50 without it.")] first: Option<i32>,
        #[graphql(desc = "After this cursor.")] after: Option<String>,
    ) -> Result<Connection<Custody>> {
        history(ctx, self.0, first, after).await
    }
}

/// Who holds an asset now.
async fn current(ctx: &Context<'_>, asset: AssetId) -> Result<Option<Custody>> {
    Ok(ctx.load::<OpenCustody>(asset).await?.map(Custody))
}

/// Who held an asset, newest first.
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

/// Mutations of custody.
#[derive(Default)]
pub(crate) struct CustodyMutation;

#[Object]
impl CustodyMutation {
    /// Hands an asset to somebody; where somebody holds it already it is a conflict that says who. Takes `ASSET_WRITE`.
    #[graphql(directive = requires::apply(AssetWrite))]
    async fn check_out_asset(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which asset.")] id: AssetId,
        #[graphql(desc = "To whom: a member of the organization.")] holder: UserId,
        #[graphql(desc = "What there is to say about it, up to 4096 characters.")] notes: Option<
            String,
        >,
    ) -> Result<Custody> {
        let tx = ctx.write().await?;
        let notes = notes.as_deref();
        let custody = custody::Custody::check_out(&tx, id, holder, notes, ctx.now()).await?;
        tx.commit().await?;
        Ok(Custody(custody))
    }

    /// Takes an asset back from whoever holds it. Takes `ASSET_WRITE`.
    #[graphql(directive = requires::apply(AssetWrite))]
    async fn check_in_asset(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which asset.")] id: AssetId,
        #[graphql(desc = "What there is to say about its return, up to 4096 characters.")]
        notes: Option<String>,
    ) -> Result<Custody> {
        let tx = ctx.write().await?;
        let custody = custody::Custody::check_in(&tx, id, notes.as_deref(), ctx.now()).await?;
        tx.commit().await?;
        Ok(Custody(custody))
    }
}

/// The custody of an asset that has not ended.
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

/// A page of an asset's custodies.
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
