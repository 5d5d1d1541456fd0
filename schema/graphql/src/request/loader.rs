//! Loaders: what a list's rows refer to, in one statement a list. Made anew for each request.
//!
//! What takes arguments is loaded by asset and arguments: one statement for all assets of equal arguments, so a document
//! costs as many as it has fields with different ones. (`loader/compliance`: those of rules, runs, postures and findings.)

use std::{collections::HashMap, hash::Hash, sync::Arc};

use async_graphql::dataloader::Loader;
use domain::{
    access::{api_key::ApiKey, role::Role, user::User},
    base::page::{Page, PageRequest},
    entity::{ApiKeyId, AssetId, UserId},
    inventory::{
        asset::Asset,
        change::Change,
        custody::Custody,
        dependency::{self, BlastRadius, Bounds, Direction, Reached},
        tag::Tag,
    },
};
use futures_util::future::OptionFuture;

use crate::request::{context::Scope, error::Error};

pub(crate) use crate::compliance::loader::{
    FiguresLoader, FindingPageLoader, PostureKey, PostureLoader, RuleLoader, RunLoader,
    TagByIdLoader, VersionLoader, WaiverLoader,
};

/// Users by id.
pub(crate) struct UserLoader(pub(crate) Arc<Scope>);

impl Loader<UserId> for UserLoader {
    type Value = User;
    type Error = Error;

    async fn load(&self, ids: &[UserId]) -> Result<HashMap<UserId, User>, Error> {
        let users = User::of_ids(&*self.0.read().await?, ids).await?;
        Ok(users.into_iter().map(|user| (user.id, user)).collect())
    }
}

/// The roles of users in the viewer's organization.
pub(crate) struct RolesLoader(pub(crate) Arc<Scope>);

impl Loader<UserId> for RolesLoader {
    type Value = Vec<Role>;
    type Error = Error;

    async fn load(&self, ids: &[UserId]) -> Result<HashMap<UserId, Vec<Role>>, Error> {
        let tx = self.0.read().await?;
        let mut roles: HashMap<_, Vec<Role>> = ids.iter().map(|id| (*id, Vec::new())).collect();
        for (user, role) in Role::of_users(&tx, tx.org(), ids).await? {
            roles.entry(user).or_default().push(role);
        }
        Ok(roles)
    }
}

/// The tags of assets.
pub(crate) struct TagLoader(pub(crate) Arc<Scope>);

impl Loader<AssetId> for TagLoader {
    type Value = Vec<Tag>;
    type Error = Error;

    async fn load(&self, ids: &[AssetId]) -> Result<HashMap<AssetId, Vec<Tag>>, Error> {
        let mut tags: HashMap<AssetId, Vec<Tag>> = HashMap::new();
        for (asset, tag) in Tag::of_assets(&*self.0.read().await?, ids).await? {
            tags.entry(asset).or_default().push(tag);
        }
        Ok(tags)
    }
}

/// API keys by id.
pub(crate) struct ApiKeyLoader(pub(crate) Arc<Scope>);

impl Loader<ApiKeyId> for ApiKeyLoader {
    type Value = ApiKey;
    type Error = Error;

    async fn load(&self, ids: &[ApiKeyId]) -> Result<HashMap<ApiKeyId, ApiKey>, Error> {
        let keys = ApiKey::of_ids(&*self.0.read().await?, ids).await?;
        Ok(keys.into_iter().map(|key| (key.id, key)).collect())
    }
}

/// Assets by id.
pub(crate) struct AssetLoader(pub(crate) Arc<Scope>);

impl Loader<AssetId> for AssetLoader {
    type Value = Asset;
    type Error = Error;

    async fn load(&self, ids: &[AssetId]) -> Result<HashMap<AssetId, Asset>, Error> {
        let assets = Asset::of_ids(&*self.0.read().await?, ids).await?;
        Ok(assets.into_iter().map(|asset| (asset.id, asset)).collect())
    }
}

/// A walk along dependencies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ReachKey {
    /// Where it begins.
    pub(crate) asset: AssetId,
    /// Which way it goes.
    pub(crate) direction: Direction,
    /// How far.
    pub(crate) bounds: Bounds,
}

/// What assets reach; one that reaches nothing has no value.
pub(crate) struct ReachLoader(pub(crate) Arc<Scope>);

impl Loader<ReachKey> for ReachLoader {
    type Value = Vec<Reached>;
    type Error = Error;

    async fn load(&self, keys: &[ReachKey]) -> Result<HashMap<ReachKey, Vec<Reached>>, Error> {
        let tx = self.0.read().await?;
        let mut all = HashMap::new();
        let by_arguments = grouped(keys, |key| ((key.direction, key.bounds), key.asset));
        for ((direction, bounds), assets) in by_arguments {
            let reached = dependency::reach(&tx, &assets, direction, bounds).await?;
            let key = |asset| ReachKey { asset, direction, bounds };
            all.extend(reached.into_iter().map(|(asset, reached)| (key(asset), reached)));
        }
        Ok(all)
    }
}

/// A question for a blast radius.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct BlastKey {
    /// What fails.
    pub(crate) asset: AssetId,
    /// How far to look.
    pub(crate) bounds: Bounds,
}

/// Blast radii of assets.
pub(crate) struct BlastLoader(pub(crate) Arc<Scope>);

impl Loader<BlastKey> for BlastLoader {
    type Value = BlastRadius;
    type Error = Error;

    async fn load(&self, keys: &[BlastKey]) -> Result<HashMap<BlastKey, BlastRadius>, Error> {
        let tx = self.0.read().await?;
        let mut all = HashMap::new();
        for (bounds, assets) in grouped(keys, |key| (key.bounds, key.asset)) {
            let radii = dependency::blast_radius(&tx, &assets, bounds).await?;
            let key = |asset| BlastKey { asset, bounds };
            all.extend(radii.into_iter().map(|(asset, radius)| (key(asset), radius)));
        }
        Ok(all)
    }
}

/// Who holds assets now.
pub(crate) struct CustodyLoader(pub(crate) Arc<Scope>);

impl Loader<AssetId> for CustodyLoader {
    type Value = Custody;
    type Error = Error;

    async fn load(&self, ids: &[AssetId]) -> Result<HashMap<AssetId, Custody>, Error> {
        let open = Custody::open_of(&*self.0.read().await?, ids).await?;
        Ok(open.into_iter().map(|custody| (custody.asset_id, custody)).collect())
    }
}

/// A page of what belongs to an asset.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PageKey {
    /// To which one.
    pub(crate) asset: AssetId,
    /// Which page.
    pub(crate) page: PageRequest,
    /// Whether all are counted.
    pub(crate) total: bool,
}

/// A page, and how many rows the whole list has where that was asked for.
pub(crate) type Loaded<T> = (Page<T>, Option<i64>);

/// Pages of assets' custodies.
pub(crate) struct CustodyPageLoader(pub(crate) Arc<Scope>);

impl Loader<PageKey> for CustodyPageLoader {
    type Value = Loaded<Custody>;
    type Error = Error;

    async fn load(&self, keys: &[PageKey]) -> Result<HashMap<PageKey, Loaded<Custody>>, Error> {
        let tx = self.0.read().await?;
        let mut all = HashMap::new();
        for ((page, total), assets) in grouped(keys, PageKey::split) {
            let pages = Custody::of_assets(&tx, &assets, &page).await?;
            let counting: OptionFuture<_> =
                total.then(|| Custody::count_of_assets(&tx, &assets)).into();
            let totals = counting.await.transpose()?;
            all.extend(keyed(pages, totals.as_ref(), &page));
        }
        Ok(all)
    }
}

/// Pages of assets' changes.
pub(crate) struct ChangePageLoader(pub(crate) Arc<Scope>);

impl Loader<PageKey> for ChangePageLoader {
    type Value = Loaded<Change>;
    type Error = Error;

    async fn load(&self, keys: &[PageKey]) -> Result<HashMap<PageKey, Loaded<Change>>, Error> {
        let tx = self.0.read().await?;
        let mut all = HashMap::new();
        for ((page, total), assets) in grouped(keys, PageKey::split) {
            let pages = Change::of_assets(&tx, &assets, &page).await?;
            let counting: OptionFuture<_> =
                total.then(|| Change::count_of_assets(&tx, &assets)).into();
            let totals = counting.await.transpose()?;
            all.extend(keyed(pages, totals.as_ref(), &page));
        }
        Ok(all)
    }
}

impl PageKey {
    pub(crate) fn split(&self) -> ((PageRequest, bool), AssetId) {
        ((self.page.clone(), self.total), self.asset)
    }
}

/// The assets of each set of equal arguments.
pub(crate) fn grouped<K, A: Eq + Hash>(
    keys: &[K],
    split: impl Fn(&K) -> (A, AssetId),
) -> HashMap<A, Vec<AssetId>> {
    let mut groups: HashMap<A, Vec<_>> = HashMap::new();
    for (arguments, asset) in keys.iter().map(split) {
        groups.entry(arguments).or_default().push(asset);
    }
    groups
}

/// Pages under the keys that asked for them; who has nothing to count has none.
pub(crate) fn keyed<T>(
    pages: HashMap<AssetId, Page<T>>,
    totals: Option<&HashMap<AssetId, i64>>,
    page: &PageRequest,
) -> impl Iterator<Item = (PageKey, Loaded<T>)> {
    pages.into_iter().map(move |(asset, rows)| {
        let total = totals.map(|totals| totals.get(&asset).copied().unwrap_or(0));
        (PageKey { asset, page: page.clone(), total: totals.is_some() }, (rows, total))
    })
}
