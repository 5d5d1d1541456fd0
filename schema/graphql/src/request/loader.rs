//! `DataLoader`s, which avoid N+1 queries: the rows that many fields of a request need are loaded in one statement.
//!
//! Each type of row implements [`Batch`], and resolvers name this implementation, so this file refers to no row type. A
//! field with arguments is loaded by owner and arguments: one statement for all owners with equal arguments. A document
//! therefore costs one statement per different set of arguments.

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
use domain::base::page::{Page, PageRequest};

use crate::request::{
    context::RequestScope,
    drive::Loads,
    error::{Error, Result},
};

/// A type of rows that are loaded in batches. Implemented by a type without data, e.g. `UserById`.
pub(crate) trait Batch: Send + Sync + 'static {
    /// Key by which a row is requested.
    type Key: Send + Sync + Hash + Eq + Clone + 'static;
    /// Row, or other value, that belongs to a key.
    type Row: Send + Sync + Clone + 'static;

    /// Loads the rows of these keys in as few statements as possible. Keys without a row are omitted from the result.
    fn load(
        scope: &RequestScope,
        keys: &[Self::Key],
    ) -> impl Future<Output = Result<HashMap<Self::Key, Self::Row>>> + Send;
}

/// An adapter from [`Batch`] to async-graphql's `Loader`.
struct BatchLoader<B> {
    scope: Arc<RequestScope>,
    batch: PhantomData<fn() -> B>,
}

impl<B: Batch> Loader<B::Key> for BatchLoader<B> {
    type Value = B::Row;
    type Error = Error;

    async fn load(&self, keys: &[B::Key]) -> Result<HashMap<B::Key, B::Row>> {
        B::load(&self.scope, keys).await
    }
}

/// Loaders of one request, each created on first use. Loaders must not be shared between requests, because the loaded
/// rows depend on the caller's permissions.
pub(crate) struct Loaders {
    scope: Arc<RequestScope>,
    loads: Loads,
    by_type: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

impl Loaders {
    /// Creates loaders that queue their loads in `loads`, which [`drive`](crate::request::drive::drive) runs together
    /// with the execution.
    pub(crate) fn new(scope: &Arc<RequestScope>, loads: &Loads) -> Self {
        Self { scope: Arc::clone(scope), loads: loads.clone(), by_type: Mutex::default() }
    }

    fn of<B: Batch>(&self) -> Arc<DataLoader<BatchLoader<B>>> {
        let mut loaders = self.by_type.lock().unwrap_or_else(PoisonError::into_inner);
        let loader = loaders.entry(TypeId::of::<B>()).or_insert_with(|| Arc::new(self.make::<B>()));
        Arc::clone(loader).downcast().expect("each loader is stored under the type of its batch")
    }

    fn make<B: Batch>(&self) -> DataLoader<BatchLoader<B>> {
        let rows = BatchLoader { scope: Arc::clone(&self.scope), batch: PhantomData };
        let loads = self.loads.clone();
        // No delay is needed: a load starts when the execution cannot progress without it.
        DataLoader::new(rows, move |load| loads.push(load)).delay(Duration::ZERO)
    }
}

/// Access of resolvers to the loaders of their request.
pub(crate) trait Load {
    /// Loads the row of a key, in one batch with all other keys requested meanwhile. Returns `None` if the key has no
    /// row.
    async fn load<B: Batch>(&self, key: B::Key) -> Result<Option<B::Row>>;
}

impl Load for Context<'_> {
    async fn load<B: Batch>(&self, key: B::Key) -> Result<Option<B::Row>> {
        self.data_unchecked::<Loaders>().of::<B>().load_one(key).await
    }
}

/// Key of one page of an owner's list.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PageKey<O> {
    /// Owner of the list, such as an asset.
    pub(crate) owner: O,
    /// Size and position of the page.
    pub(crate) page: PageRequest,
    /// True if the number of rows in the whole list is requested as well.
    pub(crate) total: bool,
}

impl<O: Copy> PageKey<O> {
    /// Splits the key into its arguments and its owner, for [`grouped`].
    pub(crate) fn split(&self) -> ((PageRequest, bool), O) {
        ((self.page.clone(), self.total), self.owner)
    }
}

/// A page, and the number of rows in the whole list, which is `None` if not requested.
pub(crate) type Loaded<T> = (Page<T>, Option<i64>);

/// Groups the owners of the keys by equal arguments.
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

/// Returns the pages by the keys that requested them. An owner without an entry in `totals` has a total of 0.
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
