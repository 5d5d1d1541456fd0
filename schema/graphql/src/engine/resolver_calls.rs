//! Counts of resolver calls, for tests of the limits: numbers that do not depend on the machine, unlike times.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use async_graphql::{
    ServerResult, Value, Variables,
    async_trait::async_trait,
    extensions::{Extension, ExtensionContext, ExtensionFactory, NextResolve, ResolveInfo},
};

use crate::{
    engine::{Engine, Settings},
    request::context::Services,
};

/// Number of calls of each resolver, by type and field, such as `Asset.name`.
#[derive(Debug, Clone, Default)]
pub struct ResolverCalls(Arc<Mutex<BTreeMap<String, usize>>>);

impl ResolverCalls {
    /// Returns the counts since the last call of this function.
    pub fn take(&self) -> BTreeMap<String, usize> {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ExtensionFactory for ResolverCalls {
    fn create(&self) -> Arc<dyn Extension> {
        Arc::new(self.clone())
    }
}

#[async_trait]
impl Extension for ResolverCalls {
    async fn resolve(
        &self,
        ctx: &ExtensionContext<'_>,
        info: ResolveInfo<'_>,
        next: NextResolve<'_>,
    ) -> ServerResult<Option<Value>> {
        let resolver = format!("{}.{}", info.parent_type, info.name);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(resolver).or_default() += 1;
        next.run(ctx, info).await
    }
}

impl Engine {
    /// Builds the engine like [`Engine::build`], and counts the calls of its resolvers.
    ///
    /// # Errors
    /// As [`Engine::build`].
    pub fn build_counted(
        services: Services,
        settings: Settings,
        calls: &ResolverCalls,
    ) -> Result<Self, Vec<String>> {
        Self::build_with(services, settings, |builder| builder.extension(calls.clone()))
    }

    /// Returns the weight of the values of a document; `None` if the document is refused.
    pub fn weight(&self, source: &str) -> Option<u64> {
        let prepared = self.prepare(source, None, Variables::default()).ok()?;
        let mut variables = Variables::default();
        let operation = prepared.document.operation(None, &mut variables).ok()?;
        let merged = prepared.merged.as_ref();
        let executed = merged.and_then(|merged| merged.merged_operation(operation));
        Some(self.0.index.cost(operation, executed).ok()?.weight)
    }
}
