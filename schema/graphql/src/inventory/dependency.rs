//! Dependencies and what is reached along them: the views, the mutations. And the fields that an asset has of them.

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
    inventory::asset::{Asset, Extended, asset_of},
    request::{
        context::{ContextExt, RequestScope},
        error::Result,
        loader::{Batch, Load, grouped},
        node::Identified,
    },
};

/// What an asset needs: the source needs the target.
pub(crate) struct Dependency(pub(crate) dependency::Dependency);

/// What an asset needs: the source needs the target. Takes `ASSET_READ`.
#[Object(directive = requires::apply(AssetRead))]
impl Dependency {
    #[graphql(flatten)]
    async fn row(&self) -> &dependency::Dependency {
        &self.0
    }

    /// Which asset needs the other.
    async fn source(&self, ctx: &Context<'_>) -> Result<Asset> {
        asset_of(ctx, self.0.source_id).await
    }

    /// Which asset is needed.
    async fn target(&self, ctx: &Context<'_>) -> Result<Asset> {
        asset_of(ctx, self.0.target_id).await
    }
}

/// An asset that was reached.
pub(crate) struct Reached(dependency::Reached);

/// An asset that was reached. Takes `ASSET_READ`.
#[Object(directive = requires::apply(AssetRead))]
impl Reached {
    /// Which one.
    async fn asset(&self, ctx: &Context<'_>) -> Result<Asset> {
        asset_of(ctx, self.0.asset).await
    }

    /// In how many steps; no way is shorter.
    async fn depth(&self) -> i32 {
        self.0.depth
    }

    /// The last step of such a way: the dependency added first, where there are several.
    async fn via(&self) -> Dependency {
        Dependency(self.0.via.clone())
    }
}

/// What a failure takes along: all that needs the asset, directly or not.
pub(crate) struct BlastRadius(dependency::BlastRadius);

/// What a failure takes along: all that needs the asset, directly or not. Takes `ASSET_READ`.
#[Object(directive = requires::apply(AssetRead))]
impl BlastRadius {
    /// How many assets, whether they are among the nodes or not.
    async fn assets(&self) -> i64 {
        self.0.assets
    }

    /// How many of these assets are services.
    async fn services(&self) -> i64 {
        self.0.services
    }

    /// The assets: the nearest first, then by name; as many as asked for.
    async fn nodes(&self) -> Vec<Reached> {
        self.0.nodes.iter().cloned().map(Reached).collect()
    }

    /// Whether there are more assets than nodes.
    async fn truncated(&self) -> bool {
        self.0.is_truncated()
    }
}

/// Dependencies of an asset: fields of [`Asset`].
pub(crate) struct AssetDependencies(AssetId);

impl Extended<entity::Dependency> for Asset {
    type Fields = AssetDependencies;

    fn extended(&self) -> AssetDependencies {
        AssetDependencies(self.0.id)
    }
}

#[Object]
impl AssetDependencies {
    /// What it needs, directly or not: the nearest first, then by name; each once, and never itself.
    async fn depends_on(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "In at most so many steps, up to 10.", default_with = "Some(1)")]
        depth: Option<i32>,
        #[graphql(desc = "How many at most, up to 100.", default_with = "Some(100)")] first: Option<
            i32,
        >,
    ) -> Result<Vec<Reached>> {
        let bounds = Bounds::check(depth.unwrap_or(1), first.unwrap_or(100))?;
        reach(ctx, self.0, Direction::DependsOn, bounds).await
    }

    /// What needs it, directly or not: the nearest first, then by name; each once, and never itself.
    async fn dependents(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "In at most so many steps, up to 10.", default_with = "Some(1)")]
        depth: Option<i32>,
        #[graphql(desc = "How many at most, up to 100.", default_with = "Some(100)")] first: Option<
            i32,
        >,
    ) -> Result<Vec<Reached>> {
        let bounds = Bounds::check(depth.unwrap_or(1), first.unwrap_or(100))?;
        reach(ctx, self.0, Direction::Dependents, bounds).await
    }

    /// What its failure takes along: all that needs it, directly or not.
    async fn blast_radius(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "In at most so many steps, up to 10.", default_with = "Some(10)")]
        depth: Option<i32>,
        #[graphql(
            desc = "How many nodes at most, up to 100; the counts are whole whatever it is.",
            default_with = "Some(100)"
        )]
        first: Option<i32>,
    ) -> Result<BlastRadius> {
        let bounds = Bounds::check(depth.unwrap_or(10), first.unwrap_or(100))?;
        blast_radius(ctx, self.0, bounds).await
    }
}

/// What an asset reaches in that direction.
async fn reach(
    ctx: &Context<'_>,
    asset: AssetId,
    direction: Direction,
    bounds: Bounds,
) -> Result<Vec<Reached>> {
    let reached = ctx.load::<Reach>(ReachKey { asset, direction, bounds }).await?;
    Ok(reached.unwrap_or_default().into_iter().map(Reached).collect())
}

/// What a failure of an asset takes along.
async fn blast_radius(ctx: &Context<'_>, asset: AssetId, bounds: Bounds) -> Result<BlastRadius> {
    let radius = ctx.load::<BlastRadii>(BlastKey { asset, bounds }).await?;
    let nothing = dependency::BlastRadius { assets: 0, services: 0, nodes: Vec::new() };
    Ok(BlastRadius(radius.unwrap_or(nothing)))
}

/// Mutations of dependencies.
#[derive(Default)]
pub(crate) struct DependencyMutation;

#[Object]
impl DependencyMutation {
    /// RuleText that the source needs the target; said twice it is a conflict. Takes `ASSET_WRITE`.
    #[graphql(directive = requires::apply(AssetWrite))]
    async fn add_dependency(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which asset needs the other.")] source: AssetId,
        #[graphql(desc = "Which asset is needed.")] target: AssetId,
        #[graphql(desc = "What for, e.g. `database`; up to 50 characters.")] kind: Option<String>,
        #[graphql(desc = "How much.")] criticality: Option<Criticality>,
    ) -> Result<Dependency> {
        let tx = ctx.write().await?;
        let kind = kind.as_deref();
        let added =
            dependency::Dependency::add(&tx, source, target, kind, criticality, ctx.now()).await?;
        tx.commit().await?;
        Ok(Dependency(added))
    }

    /// RuleText that the source no longer needs the target. Takes `ASSET_WRITE`.
    #[graphql(directive = requires::apply(AssetWrite))]
    async fn remove_dependency(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which one.")] id: DependencyId,
    ) -> Result<DependencyId> {
        let tx = ctx.write().await?;
        dependency::Dependency::remove(&tx, id, ctx.now()).await?;
        tx.commit().await?;
        Ok(id)
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
