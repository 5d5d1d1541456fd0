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
use domain::base::page::{Page, PageRequest};

use crate::request::{
    context::RequestScope,
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
        scope: &RequestScope,
        keys: &[Self::Key],
    ) -> impl Future<Output = Result<HashMap<Self::Key, Self::Row>>> + Send;
}

/// A batch as async-graphql loads it.
struct Rows<B> {
    scope: Arc<RequestScope>,
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
    scope: Arc<RequestScope>,
    loads: Loads,
    made: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

impl Loaders {
    /// Loaders whose loads go to `loads`, to be driven with the execution.
    pub(crate) fn new(scope: &Arc<RequestScope>, loads: &Loads) -> Self {
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
