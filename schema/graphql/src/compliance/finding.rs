//! Findings: the view, the queries. (The field of an asset is in `compliance/asset`.)

use std::collections::HashMap;

use async_graphql::{Context, Object};
use chrono::{DateTime, Utc};
use domain::{
    Id,
    access::{
        directive::requires,
        permission::Permission::{self, ComplianceRead},
    },
    base::page::{CursorScope, Page, PageArgs},
    compliance::finding::{self, FindingFilter},
    entity::{self, AssetId, FindingId},
};
use futures_util::future::OptionFuture;

use crate::{
    compliance::rule::RuleByVersion,
    compliance::waiver::WaiverById,
    compliance::{rule::Rule, waiver::Waiver},
    inventory::asset::{Asset, asset_of},
    request::{
        context::{ContextExt, RequestScope},
        error::Result,
        loader::{Batch, Load, Loaded, PageKey, grouped, keyed},
        node::Identified,
        page::{Connection, wants_total},
    },
};

/// A rule that an asset breaks, or broke.
pub(crate) struct Finding(pub(crate) finding::Finding);

/// A rule that an asset breaks, or broke: broken again, it is a new finding. Takes `COMPLIANCE_READ`.
#[Object(directive = requires::apply(ComplianceRead))]
impl Finding {
    #[graphql(flatten)]
    async fn row(&self) -> &finding::Finding {
        &self.0
    }

    /// The asset.
    async fn asset(&self, ctx: &Context<'_>) -> Result<Asset> {
        asset_of(ctx, self.0.asset_id).await
    }

    /// The rule, in the version that looked last.
    async fn rule(&self, ctx: &Context<'_>) -> Result<Rule> {
        let found = ctx.load::<RuleByVersion>(self.0.version_id).await?;
        found.map(Rule::from).ok_or_else(|| domain::Error::not_found("rule", self.0.rule_id).into())
    }

    /// When it was fixed; null while the rule is broken, and where it went out of scope.
    async fn fixed_at(&self) -> Option<DateTime<Utc>> {
        self.0.fixed_at()
    }

    /// What allows it, or did when it was last seen.
    async fn waiver(&self, ctx: &Context<'_>) -> Result<Option<Waiver>> {
        let Some(waiver) = self.0.waiver_id else { return Ok(None) };
        Ok(ctx.load::<WaiverById>(waiver).await?.map(Waiver))
    }
}

/// What an asset breaks now, the worst first.
pub(crate) async fn of_asset(
    ctx: &Context<'_>,
    asset: AssetId,
    first: Option<i32>,
    after: Option<String>,
) -> Result<Connection<Finding>> {
    let keys = &ctx.services().cursors;
    let scope = CursorScope::new(ctx.viewer()?.org, "assetFindings", &asset);
    let page = PageArgs { first, after, ..PageArgs::default() }.check(keys, &scope)?;
    let key = PageKey { owner: asset, page, total: wants_total(ctx) };
    let (page, total) = ctx.load::<FindingPages>(key).await?.unwrap_or((Page::EMPTY, None));
    Ok(Connection::new(page, keys, &scope, total, finding::Finding::position, Finding))
}

/// Queries on findings.
#[derive(Default)]
pub(crate) struct FindingQuery;

#[Object]
impl FindingQuery {
    /// One finding, or null. Takes `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(ComplianceRead))]
    async fn finding(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Its id.")] id: FindingId,
    ) -> Result<Option<Finding>> {
        Ok(finding::Finding::find(&*ctx.read().await?, id).await?.map(Finding))
    }

    /// The organization's findings, the worst first, of equal ones the newest. Takes `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(ComplianceRead))]
    async fn findings(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which ones; those that live without it.")] filter: Option<FindingFilter>,
        #[graphql(desc = "How many from the start, up to 100; 50 without it.")] first: Option<i32>,
        #[graphql(desc = "After this cursor.")] after: Option<String>,
        #[graphql(desc = "How many from the end, up to 100.")] last: Option<i32>,
        #[graphql(desc = "Before this cursor.")] before: Option<String>,
    ) -> Result<Connection<Finding>> {
        let filter = filter.unwrap_or_default();
        let keys = &ctx.services().cursors;
        let scope = CursorScope::new(ctx.viewer()?.org, "findings", &filter);
        let request = PageArgs { first, after, last, before }.check(keys, &scope)?;
        let tx = ctx.read().await?;
        let counting: OptionFuture<_> =
            wants_total(ctx).then(|| finding::Finding::count(&tx, &filter)).into();
        let (page, total) = tokio::join!(finding::Finding::list(&tx, &filter, &request), counting);
        let total = total.transpose()?;
        Ok(Connection::new(page?, keys, &scope, total, finding::Finding::position, Finding))
    }
}

/// A page of an asset's findings.
pub(crate) struct FindingPages;

impl Batch for FindingPages {
    type Key = PageKey<AssetId>;
    type Row = Loaded<finding::Finding>;

    async fn load(
        scope: &RequestScope,
        keys: &[PageKey<AssetId>],
    ) -> Result<HashMap<PageKey<AssetId>, Loaded<finding::Finding>>> {
        let tx = scope.read().await?;
        let mut all = HashMap::new();
        for ((page, total), assets) in grouped(keys, PageKey::split) {
            let pages = finding::Finding::of_assets(&tx, &assets, &page).await?;
            let counting: OptionFuture<_> =
                total.then(|| finding::Finding::count_of_assets(&tx, &assets)).into();
            let totals = counting.await.transpose()?;
            all.extend(keyed(pages, totals.as_ref(), &page));
        }
        Ok(all)
    }
}

impl Identified for Finding {
    type Entity = entity::Finding;

    const REQUIRES: Option<Permission> = Some(ComplianceRead);

    fn row_id(&self) -> Id<entity::Finding> {
        self.0.id
    }

    async fn find(ctx: &Context<'_>, id: Id<entity::Finding>) -> Result<Option<Self>> {
        Ok(finding::Finding::find(&*ctx.read().await?, id).await?.map(Self))
    }
}
