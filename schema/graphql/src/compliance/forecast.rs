//! Which verdicts time alone will change: the view, the query.

use async_graphql::{Context, Object};
use chrono::{DateTime, Utc};
use domain::{
    access::{directive::requires, permission::Permission::ComplianceRead},
    base::page::{CursorScope, PageArgs},
    compliance::{
        forecast::{self, Horizon},
        rule::Verdict,
    },
};
use futures_util::future::OptionFuture;

use crate::{
    compliance::rule::{Rule, rule_of},
    inventory::asset::{Asset, asset_of},
    request::{
        context::ContextExt,
        error::Result,
        page::{Connection, wants_total},
    },
};

/// A verdict that time alone will change.
pub(crate) struct Flip(forecast::Flip);

/// A verdict that time alone will change, if nothing else does. Takes `COMPLIANCE_READ`.
#[Object(directive = requires::apply(ComplianceRead))]
impl Flip {
    /// Whose verdict.
    async fn asset(&self, ctx: &Context<'_>) -> Result<Asset> {
        asset_of(ctx, self.0.asset).await
    }

    /// Which rule's.
    async fn rule(&self, ctx: &Context<'_>) -> Result<Rule> {
        rule_of(ctx, self.0.rule).await
    }

    /// What it is.
    async fn from(&self) -> Verdict {
        self.0.from
    }

    /// What it becomes.
    async fn to(&self) -> Verdict {
        self.0.to
    }

    /// When, to the microsecond.
    async fn at(&self) -> DateTime<Utc> {
        self.0.at
    }
}

/// Queries on what is to come.
#[derive(Default)]
pub(crate) struct ForecastQuery;

#[Object]
impl ForecastQuery {
    /// Which verdicts time alone will change until then, in the order of time. One whose time has come is listed until it is
    /// followed. Takes `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(ComplianceRead))]
    async fn compliance_forecast(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Until when: a time to come, at most five years ahead.")] until: DateTime<
            Utc,
        >,
        #[graphql(desc = "How many from the start, up to 100; 50 without it.")] first: Option<i32>,
        #[graphql(desc = "After this cursor.")] after: Option<String>,
    ) -> Result<Connection<Flip>> {
        let horizon = Horizon::check(until, ctx.now())?;
        let keys = &ctx.services().cursors;
        let scope = CursorScope::new(ctx.viewer()?.org, "complianceForecast", &until);
        let request = PageArgs { first, after, ..PageArgs::default() }.check(keys, &scope)?;
        let tx = ctx.read().await?;
        let counting: OptionFuture<_> = wants_total(ctx).then(|| horizon.count(&tx)).into();
        let (page, total) = tokio::join!(horizon.list(&tx, &request), counting);
        let total = total.transpose()?;
        Ok(Connection::new(page?, keys, &scope, total, forecast::Flip::position, Flip))
    }
}
