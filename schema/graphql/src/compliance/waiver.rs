//! GraphQL type, query and mutations of waivers. A waiver is a time-limited exception to a rule: failures of the rule
//! are accepted until the waiver expires or is revoked.

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

/// A time-limited exception to a rule.
pub(crate) struct Waiver(pub(crate) waiver::Waiver);

/// A waiver: a time-limited exception to a rule. Failures of the rule are accepted until the waiver expires or is
/// revoked. Requires `COMPLIANCE_READ`.
#[Object(directive = requires::apply(ComplianceRead))]
impl Waiver {
    #[graphql(flatten)]
    async fn row(&self) -> &waiver::Waiver {
        &self.0
    }

    /// The waived rule in its current version.
    async fn rule(&self, ctx: &Context<'_>) -> Result<Rule> {
        rule_of(ctx, self.0.rule_id).await
    }

    /// Asset for which the rule is waived. Null if the waiver covers all assets, or if the asset was deleted;
    /// `isGeneral` distinguishes the two cases.
    async fn asset(&self, ctx: &Context<'_>) -> Result<Option<Asset>> {
        let Some(asset) = self.0.asset_id else { return Ok(None) };
        Ok(ctx.load::<AssetById>(asset).await?.map(Asset))
    }

    /// True if the waiver covers all assets; false if it covers one asset, even a deleted one.
    async fn is_general(&self) -> bool {
        self.0.asset_id.is_none()
    }

    /// State of the waiver at the time of the request.
    async fn state(&self, ctx: &Context<'_>) -> WaiverState {
        self.0.state(ctx.now())
    }

    /// The actor who granted the waiver; null if the user or API key no longer exists.
    async fn granted_by(&self, ctx: &Context<'_>) -> Result<Option<Actor>> {
        actor(ctx, self.0.granted_by).await
    }

    /// The actor who revoked the waiver. Null if the waiver was not revoked, or if the user or API key no longer
    /// exists.
    async fn revoked_by(&self, ctx: &Context<'_>) -> Result<Option<Actor>> {
        let Some(by) = self.0.revoked_by else { return Ok(None) };
        actor(ctx, by).await
    }
}

/// Root field that reads waivers.
#[derive(Default)]
pub(crate) struct WaiverQuery;

#[Object]
impl WaiverQuery {
    /// The organization's waivers in all states, newest first. Requires `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(ComplianceRead))]
    async fn waivers(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Page size, 1 to 100; default 50.")] first: Option<i32>,
        #[graphql(desc = "Cursor after which the page starts.")] after: Option<String>,
        #[graphql(desc = "Page size from the end, 1 to 100.")] last: Option<i32>,
        #[graphql(desc = "Cursor before which the page ends.")] before: Option<String>,
    ) -> Result<Connection<Waiver>> {
        let cursor_signing_keys = &ctx.services().cursors;
        let cursor_scope = CursorScope::new(ctx.viewer()?.org, "waivers", &());
        let request =
            PageArgs { first, after, last, before }.check(cursor_signing_keys, &cursor_scope)?;
        let tx = ctx.read().await?;
        let counting: OptionFuture<_> = wants_total(ctx).then(|| waiver::Waiver::count(&tx)).into();
        let (page, total) = tokio::join!(waiver::Waiver::list(&tx, &request), counting);
        let total = total.transpose()?;
        Ok(Connection::new(
            page?,
            cursor_signing_keys,
            &cursor_scope,
            total,
            waiver::Waiver::position,
            Waiver,
        ))
    }
}

/// Root fields that grant and revoke waivers.
#[derive(Default)]
pub(crate) struct WaiverMutation;

#[Object]
impl WaiverMutation {
    /// Grants a waiver. Until the waiver expires or is revoked, failures of the rule are waived: the verdict stays
    /// `FAIL`, but is left out of the score. Fails with `CONFLICT` if an active waiver for the same rule and the same
    /// asset (or for all assets, if `input` has no asset) already exists. Requires `WAIVER_GRANT`.
    #[graphql(directive = requires::apply(WaiverGrant))]
    async fn grant_waiver(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The waiver to grant.")] input: WaiverInput,
    ) -> Result<Waiver> {
        let tx = ctx.write().await?;
        let waiver = waiver::Waiver::grant(&tx, &input, ctx.now()).await?;
        tx.commit().await?;
        Ok(Waiver(waiver))
    }

    /// Revokes a waiver before it expires. Fails with `CONFLICT` if the waiver has expired or was already revoked.
    /// Requires `WAIVER_GRANT`.
    #[graphql(directive = requires::apply(WaiverGrant))]
    async fn revoke_waiver(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The waiver's id, beginning `wvr_`.")] id: WaiverId,
    ) -> Result<Waiver> {
        let tx = ctx.write().await?;
        let waiver = waiver::Waiver::revoke(&tx, id, ctx.now()).await?;
        tx.commit().await?;
        Ok(Waiver(waiver))
    }
}

/// Loads several waivers by id.
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
