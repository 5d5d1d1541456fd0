//! Forecast of verdicts: GraphQL type and query.

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

/// Expected change of a verdict without a change of facts.
pub(crate) struct Flip(forecast::Flip);

/// Expected change of a verdict without a change of facts, e.g. because a certificate expires. Requires
/// `COMPLIANCE_READ`.
#[Object(directive = requires::apply(ComplianceRead))]
impl Flip {
    /// The asset on which the verdict changes.
    async fn asset(&self, ctx: &Context<'_>) -> Result<Asset> {
        asset_of(ctx, self.0.asset).await
    }

    /// The rule whose verdict changes.
    async fn rule(&self, ctx: &Context<'_>) -> Result<Rule> {
        rule_of(ctx, self.0.rule).await
    }

    /// Verdict of the rule before the change.
    async fn from(&self) -> Verdict {
        self.0.from
    }

    /// Verdict of the rule after the change.
    async fn to(&self) -> Verdict {
        self.0.to
    }

    /// Time of the change, with microsecond precision.
    async fn at(&self) -> DateTime<Utc> {
        self.0.at
    }
}

/// Root field that reads the forecast.
#[derive(Default)]
pub(crate) struct ForecastQuery;

#[Object]
impl ForecastQuery {
    /// Verdicts that will change by `until` although no fact changes, e.g. because a certificate expires, ordered by
    /// time. A change that is due stays listed until its asset has been re-evaluated. Requires `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(ComplianceRead))]
    async fn compliance_forecast(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "End of the forecast: in the future, at most five years ahead.")]
        until: DateTime<Utc>,
        #[graphql(desc = "Page size, 1 to 100; default 50.")] first: Option<i32>,
        #[graphql(desc = "Cursor after which the page starts.")] after: Option<String>,
    ) -> Result<Connection<Flip>> {
        let horizon = Horizon::check(until, ctx.now())?;
        let cursor_signing_keys = &ctx.services().cursors;
        let cursor_scope = CursorScope::new(ctx.viewer()?.org, "complianceForecast", &until);
        let request = PageArgs { first, after, ..PageArgs::default() }
            .check(cursor_signing_keys, &cursor_scope)?;
        let tx = ctx.read().await?;
        let counting: OptionFuture<_> = wants_total(ctx).then(|| horizon.count(&tx)).into();
        let (page, total) = tokio::join!(horizon.list(&tx, &request), counting);
        let total = total.transpose()?;
        Ok(Connection::new(
            page?,
            cursor_signing_keys,
            &cursor_scope,
            total,
            forecast::Flip::position,
            Flip,
        ))
    }
}
