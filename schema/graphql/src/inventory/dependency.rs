//! Dependencies, and the assets reached along them: the GraphQL types, the mutations, and the dependency fields of
//! assets.

use std::collections::HashMap;

use async_graphql::{Context, Object};
use domain::{
    Id,
    access::{
        directive::requires,
        permission::Permission::{self, AssetRead, AssetWrite},
    },
    entity::{self, AssetId, DependencyId},
    inventory::dependency::{self, Bounds, Criticality, Direction},
};

use crate::{
    inventory::asset::{AddedFields, Asset, asset_of},
    request::{
        context::{ContextExt, RequestScope},
        error::Result,
        loader::{Batch, Load, grouped},
        node::Identified,
        row::{Row, rows},
    },
};

/// A dependency: one asset, the source, depends on another asset, the target.
pub(crate) struct Dependency(pub(crate) dependency::Dependency);

/// A dependency: one asset, the source, depends on another asset, the target. Requires `ASSET_READ`.
#[Object(directive = requires::apply(AssetRead))]
impl Dependency {
    #[graphql(flatten)]
    async fn row(&self) -> &dependency::Dependency {
        &self.0
    }

    /// The dependent asset: it depends on the target.
    async fn source(&self, ctx: &Context<'_>) -> Result<Asset> {
        asset_of(ctx, self.0.source_id).await
    }

    /// The asset on which the source depends.
    async fn target(&self, ctx: &Context<'_>) -> Result<Asset> {
        asset_of(ctx, self.0.target_id).await
    }
}

/// An asset reached along dependencies.
pub(crate) struct Reached(dependency::Reached);

/// An asset reached along dependencies. Requires `ASSET_READ`.
#[Object(directive = requires::apply(AssetRead))]
impl Reached {
    /// The asset that was reached along dependencies.
    async fn asset(&self, ctx: &Context<'_>) -> Result<Asset> {
        asset_of(ctx, self.0.asset).await
    }

    /// Number of dependencies on a shortest path from the queried asset to this asset.
    async fn depth(&self) -> i32 {
        self.0.depth
    }

    /// Last dependency on a shortest path to this asset. If there are several, the oldest.
    async fn via(&self) -> Dependency {
        Dependency(self.0.via.clone())
    }
}

/// Blast radius of an asset: all assets that depend on the asset, directly or indirectly.
pub(crate) struct BlastRadius(dependency::BlastRadius);

/// Blast radius of an asset: all assets that depend on the asset, directly or indirectly. Requires `ASSET_READ`.
#[Object(directive = requires::apply(AssetRead))]
impl BlastRadius {
    /// Number of affected assets, including those not listed in `nodes`.
    async fn assets(&self) -> i64 {
        self.0.assets
    }

    /// Number of affected assets that are services.
    async fn services(&self) -> i64 {
        self.0.services
    }

    /// The nearest affected assets, at most `first`, ordered by depth, then by name.
    async fn nodes(&self) -> Vec<Row<Reached>> {
        rows(self.0.nodes.iter().cloned().map(Reached))
    }

    /// True if more assets are affected than `nodes` lists.
    async fn truncated(&self) -> bool {
        self.0.is_truncated()
    }
}

/// Dependency fields of [`Asset`].
pub(crate) struct AssetDependencies(AssetId);

impl AddedFields<entity::Dependency> for Asset {
    type Fields = AssetDependencies;

    fn added_fields(&self) -> AssetDependencies {
        AssetDependencies(self.0.id)
    }
}

#[Object]
impl AssetDependencies {
    /// Assets on which this asset depends, directly or indirectly, ordered by depth, then by name. Each asset is listed
    /// once. This asset itself is not listed, even if dependencies form a cycle.
    async fn depends_on(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Maximum depth in dependencies, 1 to 10.", default_with = "Some(1)")]
        depth: Option<i32>,
        #[graphql(desc = "Maximum number of assets, 1 to 100.", default_with = "Some(100)")] first: Option<
            i32,
        >,
    ) -> Result<Vec<Row<Reached>>> {
        let bounds = Bounds::check(depth.unwrap_or(1), first.unwrap_or(100))?;
        reach(ctx, self.0, Direction::DependsOn, bounds).await
    }

    /// Assets that depend on this asset, directly or indirectly, ordered by depth, then by name. Each asset is listed
    /// once. This asset itself is not listed, even if dependencies form a cycle.
    async fn dependents(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Maximum depth in dependencies, 1 to 10.", default_with = "Some(1)")]
        depth: Option<i32>,
        #[graphql(desc = "Maximum number of assets, 1 to 100.", default_with = "Some(100)")] first: Option<
            i32,
        >,
    ) -> Result<Vec<Row<Reached>>> {
        let bounds = Bounds::check(depth.unwrap_or(1), first.unwrap_or(100))?;
        reach(ctx, self.0, Direction::Dependents, bounds).await
    }

    /// Blast radius of the asset: all assets that depend on this asset, directly or indirectly.
    async fn blast_radius(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Maximum depth in dependencies, 1 to 10.", default_with = "Some(10)")]
        depth: Option<i32>,
        #[graphql(
            desc = "Maximum number of nodes, 1 to 100. The counts include all affected assets up to the depth.",
            default_with = "Some(100)"
        )]
        first: Option<i32>,
    ) -> Result<BlastRadius> {
        let bounds = Bounds::check(depth.unwrap_or(10), first.unwrap_or(100))?;
        blast_radius(ctx, self.0, bounds).await
    }
}

/// Returns the assets that are reached from an asset in this direction.
async fn reach(
    ctx: &Context<'_>,
    asset: AssetId,
    direction: Direction,
    bounds: Bounds,
) -> Result<Vec<Row<Reached>>> {
    let reached = ctx.load::<Reach>(ReachKey { asset, direction, bounds }).await?;
    Ok(rows(reached.unwrap_or_default().into_iter().map(Reached)))
}

/// Returns the blast radius of an asset.
async fn blast_radius(ctx: &Context<'_>, asset: AssetId, bounds: Bounds) -> Result<BlastRadius> {
    let radius = ctx.load::<BlastRadii>(BlastKey { asset, bounds }).await?;
    let empty = dependency::BlastRadius { assets: 0, services: 0, nodes: Vec::new() };
    Ok(BlastRadius(radius.unwrap_or(empty)))
}

/// Root fields that change dependencies.
#[derive(Default)]
pub(crate) struct DependencyMutation;

#[Object]
impl DependencyMutation {
    /// Adds a dependency of the source on the target. Fails with `CONFLICT` if the source already depends on the
    /// target. Requires `ASSET_WRITE`.
    #[graphql(directive = requires::apply(AssetWrite))]
    async fn add_dependency(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The dependent asset: it depends on the target.")] source: AssetId,
        #[graphql(desc = "The asset on which the source depends.")] target: AssetId,
        #[graphql(desc = "Purpose, e.g. `database`; up to 50 characters.")] kind: Option<String>,
        #[graphql(desc = "Effect on the source if the target fails.")] criticality: Option<
            Criticality,
        >,
    ) -> Result<Dependency> {
        let tx = ctx.write().await?;
        let kind = kind.as_deref();
        let added =
            dependency::Dependency::add(&tx, source, target, kind, criticality, ctx.now()).await?;
        tx.commit().await?;
        Ok(Dependency(added))
    }

    /// Deletes a dependency. Requires `ASSET_WRITE`.
    #[graphql(directive = requires::apply(AssetWrite))]
    async fn remove_dependency(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The dependency's id, beginning `dep_`.")] id: DependencyId,
    ) -> Result<DependencyId> {
        let tx = ctx.write().await?;
        dependency::Dependency::remove(&tx, id).await?;
        tx.commit().await?;
        Ok(id)
    }
}

/// Key of the batch loader [`Reach`]: a walk along dependencies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ReachKey {
    /// Asset where the walk starts.
    pub(crate) asset: AssetId,
    /// Direction in which the walk goes.
    pub(crate) direction: Direction,
    /// Limits of the walk: its depth and number of assets.
    pub(crate) bounds: Bounds,
}

/// Batch loader of the assets that walks reach. A walk that reaches no asset has no value.
pub(crate) struct Reach;

impl Batch for Reach {
    type Key = ReachKey;
    type Row = Vec<dependency::Reached>;

    async fn load(
        scope: &RequestScope,
        keys: &[ReachKey],
    ) -> Result<HashMap<ReachKey, Vec<dependency::Reached>>> {
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

/// Key of the batch loader [`BlastRadii`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct BlastKey {
    /// Asset that is assumed to fail.
    pub(crate) asset: AssetId,
    /// Limits of the walk: its depth and number of assets.
    pub(crate) bounds: Bounds,
}

/// Batch loader of the blast radii of assets.
pub(crate) struct BlastRadii;

impl Batch for BlastRadii {
    type Key = BlastKey;
    type Row = dependency::BlastRadius;

    async fn load(
        scope: &RequestScope,
        keys: &[BlastKey],
    ) -> Result<HashMap<BlastKey, dependency::BlastRadius>> {
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

impl Identified for Dependency {
    type Entity = entity::Dependency;

    const REQUIRES: Option<Permission> = Some(AssetRead);

    fn row_id(&self) -> Id<entity::Dependency> {
        self.0.id
    }

    async fn find(ctx: &Context<'_>, id: Id<entity::Dependency>) -> Result<Option<Self>> {
        Ok(dependency::Dependency::find(&*ctx.read().await?, id).await?.map(Self))
    }
}
