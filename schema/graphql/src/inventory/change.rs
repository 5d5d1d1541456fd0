//! The GraphQL type of the change history of an asset, without values. The field `changes` is in `asset`.

use std::collections::HashMap;

use async_graphql::{Context, Object};
use chrono::{DateTime, Utc};
use domain::{
    access::{directive::requires, permission::Permission::AssetRead},
    base::page::{CursorScope, Page, PageArgs},
    entity::{AssetId, AuditEntryId},
    inventory::change,
};
use futures_util::future::OptionFuture;

use crate::{
    access::actor::{Actor, actor},
    request::{
        context::{ContextExt, RequestScope},
        error::Result,
        loader::{Batch, Load, Loaded, PageKey, grouped, keyed},
        page::{Connection, wants_total},
    },
};

/// A recorded change of an asset, without the values.
pub(crate) struct Change(change::Change);

/// A recorded change of an asset, without the values. Requires `ASSET_READ`.
#[Object(directive = requires::apply(AssetRead))]
impl Change {
    /// The id of the change's audit entry, which also has the values.
    async fn id(&self) -> AuditEntryId {
        self.0.id
    }

    /// Time at which the change was made.
    async fn at(&self) -> DateTime<Utc> {
        self.0.at
    }

    /// The user or API key that made the change, or SentryOps itself. Null if the user or API key no longer exists.
    async fn actor(&self, ctx: &Context<'_>) -> Result<Option<Actor>> {
        actor(ctx, self.0.actor).await
    }

    /// The audit action, e.g. `asset.updated`.
    async fn action(&self) -> &str {
        &self.0.action
    }

    /// Key paths of the changed values, e.g. `attributes.os_name`.
    async fn paths(&self) -> &[String] {
        &self.0.paths
    }
}

/// Returns a page of an asset's changes, newest first.
pub(crate) async fn changes(
    ctx: &Context<'_>,
    asset: AssetId,
    first: Option<i32>,
    after: Option<String>,
) -> Result<Connection<Change>> {
    let keys = &ctx.services().cursors;
    let scope = CursorScope::new(ctx.viewer()?.org, "changes", &asset);
    let page = PageArgs { first, after, ..PageArgs::default() }.check(keys, &scope)?;
    let key = PageKey { owner: asset, page, total: wants_total(ctx) };
    let (page, total) = ctx.load::<ChangePages>(key).await?.unwrap_or((Page::EMPTY, None));
    Ok(Connection::new(page, keys, &scope, total, change::Change::position, Change))
}

/// Batch loader of pages of changes by asset.
pub(crate) struct ChangePages;

impl Batch for ChangePages {
    type Key = PageKey<AssetId>;
    type Row = Loaded<change::Change>;

    async fn load(
        scope: &RequestScope,
        keys: &[PageKey<AssetId>],
    ) -> Result<HashMap<PageKey<AssetId>, Loaded<change::Change>>> {
        let tx = scope.read().await?;
        let mut all = HashMap::new();
        for ((page, total), assets) in grouped(keys, PageKey::split) {
            let pages = change::Change::of_assets(&tx, &assets, &page).await?;
            let counting: OptionFuture<_> =
                total.then(|| change::Change::count_of_assets(&tx, &assets)).into();
            let totals = counting.await.transpose()?;
            all.extend(keyed(pages, totals.as_ref(), &page));
        }
        Ok(all)
    }
}
