//! Waivers: the view, the query, the mutations.

use std::collections::HashMap;

use async_graphql::{Context, Object};
use domain::{
    Id,
    access::{
        directive::requires,
        permission::Permission::{self, ComplianceRead, WaiverGrant},
    },
    base::page::{CursorScope, PageArgs},
    compliance::waiver::{self, WaiverInput, WaiverState},
    entity::{self, WaiverId},
};
use futures_util::future::OptionFuture;

use crate::{
    access::actor::{Actor, actor},
    compliance::rule::{Rule, rule_of},
    inventory::asset::Asset,
    inventory::asset::AssetById,
    request::{
        context::{ContextExt, RequestScope},
        error::Result,
        loader::{Batch, Load},
        node::Identified,
        page::{Connection, wants_total},
    },
};

/// A dated permission to leave a rule broken.
pub(crate) struct Waiver(pub(crate) waiver::Waiver);

/// A dated permission to leave a rule broken. Takes `COMPLIANCE_READ`.
#[Object(directive = requires::apply(ComplianceRead))]
impl Waiver {
    #[graphql(flatten)]
    async fn row(&self) -> &waiver::Waiver {
        &self.0
    }

    /// The rule that may be broken.
    async fn rule(&self, ctx: &Context<'_>) -> Result<Rule> {
        rule_of(ctx, self.0.rule_id).await
    }

    /// By which asset; null where by all of them, and where it is gone.
    async fn asset(&self, ctx: &Context<'_>) -> Result<Option<Asset>> {
        let Some(asset) = self.0.asset_id else { return Ok(None) };
        Ok(ctx.load::<AssetById>(asset).await?.map(Asset))
    }

    /// Whether it is about all assets.
    async fn is_general(&self) -> bool {
        self.0.asset_id.is_none()
    }

    /// Where it is in its life.
    async fn state(&self, ctx: &Context<'_>) -> WaiverState {
        self.0.state(ctx.now())
    }

    /// Who allowed it.
    async fn granted_by(&self, ctx: &Context<'_>) -> Result<Option<Actor>> {
        actor(ctx, self.0.granted_by).await
    }

    /// Who ended it; null where nobody did.
    async fn revoked_by(&self, ctx: &Context<'_>) -> Result<Option<Actor>> {
        let Some(by) = self.0.revoked_by else { return Ok(None) };
        actor(ctx, by).await
    }
}

/// Queries on waivers.
#[derive(Default)]
pub(crate) struct WaiverQuery;

#[Object]
impl WaiverQuery {
    /// The organization's waivers, newest first. Takes `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(ComplianceRead))]
    async fn waivers(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many from the start, up to 100; 50 without it.")] first: Option<i32>,
        #[graphql(desc = "After this cursor.")] after: Option<String>,
        #[graphql(desc = "How many from the end, up to 100.")] last: Option<i32>,
        #[graphql(desc = "Before this cursor.")] before: Option<String>,
    ) -> Result<Connection<Waiver>> {
        let keys = &ctx.services().cursors;
        let scope = CursorScope::new(ctx.viewer()?.org, "waivers", &());
        let request = PageArgs { first, after, last, before }.check(keys, &scope)?;
        let tx = ctx.read().await?;
        let counting: OptionFuture<_> = wants_total(ctx).then(|| waiver::Waiver::count(&tx)).into();
        let (page, total) = tokio::join!(waiver::Waiver::list(&tx, &request), counting);
        let total = total.transpose()?;
        Ok(Connection::new(page?, keys, &scope, total, waiver::Waiver::position, Waiver))
    }
}

/// Mutations of waivers.
#[derive(Default)]
pub(crate) struct WaiverMutation;

#[Object]
impl WaiverMutation {
    /// Allows that a rule is broken, until a day: it counts as waived, neither as passed nor as failed. An equal one that
    /// holds is a conflict. Takes `WAIVER_GRANT`.
    #[graphql(directive = requires::apply(WaiverGrant))]
    async fn grant_waiver(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to allow, and until when.")] input: WaiverInput,
    ) -> Result<Waiver> {
        let tx = ctx.write().await?;
        let waiver = waiver::Waiver::grant(&tx, &input, ctx.now()).await?;
        tx.commit().await?;
        Ok(Waiver(waiver))
    }

    /// Ends a waiver before its time; one that has ended is a conflict. Takes `WAIVER_GRANT`.
    #[graphql(directive = requires::apply(WaiverGrant))]
    async fn revoke_waiver(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which one.")] id: WaiverId,
    ) -> Result<Waiver> {
        let tx = ctx.write().await?;
        let waiver = waiver::Waiver::revoke(&tx, id, ctx.now()).await?;
        tx.commit().await?;
        Ok(Waiver(waiver))
    }
}

/// A waiver by id.
pub(crate) struct WaiverById;

impl Batch for WaiverById {
    type Key = WaiverId;
    type Row = waiver::Waiver;

    async fn load(
        scope: &RequestScope,
        ids: &[WaiverId],
    ) -> Result<HashMap<WaiverId, waiver::Waiver>> {
        let waivers = waiver::Waiver::of_ids(&*scope.read().await?, ids).await?;
        Ok(waivers.into_iter().map(|waiver| (waiver.id, waiver)).collect())
    }
}

impl Identified for Waiver {
    type Entity = entity::Waiver;

    const REQUIRES: Option<Permission> = Some(ComplianceRead);

    fn row_id(&self) -> Id<entity::Waiver> {
        self.0.id
    }

    async fn find(ctx: &Context<'_>, id: Id<entity::Waiver>) -> Result<Option<Self>> {
        Ok(waiver::Waiver::find(&*ctx.read().await?, id).await?.map(Self))
    }
}
