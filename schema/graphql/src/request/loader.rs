//! Loaders: rows that many places of a request need, loaded in one statement for all of them.
//!
//! Each noun says how its rows are loaded in a [`Batch`] of its own, and a resolver asks for them by that type; so nothing here
//! names a noun. What takes arguments is loaded by owner and arguments: one statement for all owners of equal arguments, so a
//! document costs as many as it has fields with different ones.

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    hash::Hash,
    marker::PhantomData,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_graphql::{
    Context,
    dataloader::{DataLoader, Loader},
};
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

pub(crate) use crate::compliance::loader::{
    FiguresOfRun, FindingPages, PostureKey, PostureOfAsset, RuleById, RuleByVersion, RunById,
    TagById, WaiverById,
};
use crate::request::{
    context::Scope,
    drive::Loads,
    error::{Error, Result},
};

/// Rows of one kind that are loaded together, named by a type without data.
pub(crate) trait Batch: Send + Sync + 'static {
    /// The key that a row is asked for by.
    type Key: Send + Sync + Hash + Eq + Clone + 'static;
    /// The row, or whatever stands under a key.
    type Row: Send + Sync + Clone + 'static;

    /// The rows of these keys, in as few statements as can be; a key without a row is left out.
    fn load(
        scope: &Scope,
        keys: &[Self::Key],
    ) -> impl Future<Output = Result<HashMap<Self::Key, Self::Row>>> + Send;
}

/// A batch as async-graphql loads it.
struct Rows<B> {
    scope: Arc<Scope>,
    batch: PhantomData<fn() -> B>,
}

impl<B: Batch> Loader<B::Key> for Rows<B> {
    type Value = B::Row;
    type Error = Error;

    async fn load(&self, keys: &[B::Key]) -> Result<HashMap<B::Key, B::Row>> {
        B::load(&self.scope, keys).await
    }
}

/// The loaders of one request, each made when it is first asked for. Never shared between requests: they would mix what
/// different callers may see.
pub(crate) struct Loaders {
    scope: Arc<Scope>,
    loads: Loads,
    made: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

impl Loaders {
    /// Loaders whose loads go to `loads`, to be driven with the execution.
    pub(crate) fn new(scope: &Arc<Scope>, loads: &Loads) -> Self {
        Self { scope: Arc::clone(scope), loads: loads.clone(), made: Mutex::default() }
    }

    fn of<B: Batch>(&self) -> Arc<DataLoader<Rows<B>>> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let loader = made.entry(TypeId::of::<B>()).or_insert_with(|| Arc::new(self.make::<B>()));
        Arc::clone(loader).downcast().expect("a loader stands under its own batch")
    }

    fn make<B: Batch>(&self) -> DataLoader<Rows<B>> {
        let rows = Rows { scope: Arc::clone(&self.scope), batch: PhantomData };
        let loads = self.loads.clone();
        // No delay: a load starts when the execution has nothing else to do.
        DataLoader::new(rows, move |load| loads.push(load)).delay(Duration::ZERO)
    }
}

/// A resolver's way to its request's loaders.
pub(crate) trait Load {
    /// The row under a key, loaded together with whatever else is asked for meanwhile.
    async fn load<B: Batch>(&self, key: B::Key) -> Result<Option<B::Row>>;
}

impl Load for Context<'_> {
    async fn load<B: Batch>(&self, key: B::Key) -> Result<Option<B::Row>> {
        self.data_unchecked::<Loaders>().of::<B>().load_one(key).await
    }
}

/// A page of what belongs to an owner.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PageKey<O> {
    /// To which one.
    pub(crate) owner: O,
    /// Which page.
    pub(crate) page: PageRequest,
    /// Whether all are counted.
    pub(crate) total: bool,
}

impl<O: Copy> PageKey<O> {
    /// The arguments and the owner, for [`grouped`].
    pub(crate) fn split(&self) -> ((PageRequest, bool), O) {
        ((self.page.clone(), self.total), self.owner)
    }
}

/// A page, and how many rows the whole list has where that was asked for.
pub(crate) type Loaded<T> = (Page<T>, Option<i64>);

/// The owners of each set of equal arguments.
pub(crate) fn grouped<K, A: Eq + Hash, O>(
    keys: &[K],
    split: impl Fn(&K) -> (A, O),
) -> HashMap<A, Vec<O>> {
    let mut groups: HashMap<A, Vec<_>> = HashMap::new();
    for (arguments, owner) in keys.iter().map(split) {
        groups.entry(arguments).or_default().push(owner);
    }
    groups
}

/// Pages under the keys that asked for them; who has nothing to count has none.
pub(crate) fn keyed<O: Copy + Eq + Hash, T>(
    pages: HashMap<O, Page<T>>,
    totals: Option<&HashMap<O, i64>>,
    page: &PageRequest,
) -> impl Iterator<Item = (PageKey<O>, Loaded<T>)> {
    pages.into_iter().map(move |(owner, rows)| {
        let total = totals.map(|totals| totals.get(&owner).copied().unwrap_or(0));
        (PageKey { owner, page: page.clone(), total: totals.is_some() }, (rows, total))
    })
}

/// A person by id.
pub(crate) struct UserById;

impl Batch for UserById {
    type Key = UserId;
    type Row = User;

    async fn load(scope: &Scope, ids: &[UserId]) -> Result<HashMap<UserId, User>> {
        let users = User::of_ids(&*scope.read().await?, ids).await?;
        Ok(users.into_iter().map(|user| (user.id, user)).collect())
    }
}

/// The roles of a user in the viewer's organization.
pub(crate) struct RolesOfUser;

impl Batch for RolesOfUser {
    type Key = UserId;
    type Row = Vec<Role>;

    async fn load(scope: &Scope, ids: &[UserId]) -> Result<HashMap<UserId, Vec<Role>>> {
        let tx = scope.read().await?;
        let mut roles: HashMap<_, Vec<Role>> = ids.iter().map(|id| (*id, Vec::new())).collect();
        for (user, role) in Role::of_users(&tx, tx.org(), ids).await? {
            roles.entry(user).or_default().push(role);
        }
        Ok(roles)
    }
}

/// The tags of an asset.
pub(crate) struct TagsOfAsset;

impl Batch for TagsOfAsset {
    type Key = AssetId;
    type Row = Vec<Tag>;

    async fn load(scope: &Scope, ids: &[AssetId]) -> Result<HashMap<AssetId, Vec<Tag>>> {
        let mut tags: HashMap<AssetId, Vec<Tag>> = HashMap::new();
        for (asset, tag) in Tag::of_assets(&*scope.read().await?, ids).await? {
            tags.entry(asset).or_default().push(tag);
        }
        Ok(tags)
    }
}

/// An API key by id.
pub(crate) struct ApiKeyById;

impl Batch for ApiKeyById {
    type Key = ApiKeyId;
    type Row = ApiKey;

    async fn load(scope: &Scope, ids: &[ApiKeyId]) -> Result<HashMap<ApiKeyId, ApiKey>> {
        let keys = ApiKey::of_ids(&*scope.read().await?, ids).await?;
        Ok(keys.into_iter().map(|key| (key.id, key)).collect())
    }
}

/// An asset by id.
pub(crate) struct AssetById;

impl Batch for AssetById {
    type Key = AssetId;
    type Row = Asset;

    async fn load(scope: &Scope, ids: &[AssetId]) -> Result<HashMap<AssetId, Asset>> {
        let assets = Asset::of_ids(&*scope.read().await?, ids).await?;
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

/// Assets that a walk along dependencies reaches; one that reaches nothing has no value.
pub(crate) struct Reach;

impl Batch for Reach {
    type Key = ReachKey;
    type Row = Vec<Reached>;

    async fn load(scope: &Scope, keys: &[ReachKey]) -> Result<HashMap<ReachKey, Vec<Reached>>> {
        let tx = scope.read().await?;
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

/// The blast radius of an asset.
pub(crate) struct BlastRadii;

impl Batch for BlastRadii {
    type Key = BlastKey;
    type Row = BlastRadius;

    async fn load(scope: &Scope, keys: &[BlastKey]) -> Result<HashMap<BlastKey, BlastRadius>> {
        let tx = scope.read().await?;
        let mut all = HashMap::new();
        for (bounds, assets) in grouped(keys, |key| (key.bounds, key.asset)) {
            let radii = dependency::blast_radius(&tx, &assets, bounds).await?;
            let key = |asset| BlastKey { asset, bounds };
            all.extend(radii.into_iter().map(|(asset, radius)| (key(asset), radius)));
        }
        Ok(all)
    }
}

/// The custody of an asset that has not ended.
pub(crate) struct OpenCustody;

impl Batch for OpenCustody {
    type Key = AssetId;
    type Row = Custody;

    async fn load(scope: &Scope, ids: &[AssetId]) -> Result<HashMap<AssetId, Custody>> {
        let open = Custody::open_of(&*scope.read().await?, ids).await?;
        Ok(open.into_iter().map(|custody| (custody.asset_id, custody)).collect())
    }
}

/// A page of an asset's custodies.
pub(crate) struct CustodyPages;

impl Batch for CustodyPages {
    type Key = PageKey<AssetId>;
    type Row = Loaded<Custody>;

    async fn load(
        scope: &Scope,
        keys: &[PageKey<AssetId>],
    ) -> Result<HashMap<PageKey<AssetId>, Loaded<Custody>>> {
        let tx = scope.read().await?;
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

/// A page of an asset's changes.
pub(crate) struct ChangePages;

impl Batch for ChangePages {
    type Key = PageKey<AssetId>;
    type Row = Loaded<Change>;

    async fn load(
        scope: &Scope,
        keys: &[PageKey<AssetId>],
    ) -> Result<HashMap<PageKey<AssetId>, Loaded<Change>>> {
        let tx = scope.read().await?;
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
