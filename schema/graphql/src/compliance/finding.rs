//! GraphQL type and queries of findings. A finding is live while its state is `OPEN` or `WAIVED`. The field `findings`
//! of an asset is in `compliance/asset`.

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
    compliance::{
        evidence::{AssetDetails, Evidence},
        finding::{self, FindingFilter},
    },
    entity::{self, AssetId, FindingId},
};
use futures_util::future::OptionFuture;
use serde_json::{Value, json};

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

/// A finding: the record of an asset that fails or failed a rule.
pub(crate) struct Finding(pub(crate) finding::Finding);

/// A finding: the record of an asset that fails or failed a rule. The finding is live (`OPEN` or `WAIVED`) from the
/// first failing evaluation until the asset passes (`FIXED`) or the failure can no longer be assessed (`OUT_OF_SCOPE`).
/// A later failure of the same rule opens a new finding. Requires `COMPLIANCE_READ`.
#[Object(directive = requires::apply(ComplianceRead))]
impl Finding {
    #[graphql(flatten)]
    async fn row(&self) -> &finding::Finding {
        &self.0
    }

    /// The asset that fails or failed the rule.
    async fn asset(&self, ctx: &Context<'_>) -> Result<Asset> {
        asset_of(ctx, self.0.asset_id).await
    }

    /// The rule, in the version with which the asset was last evaluated.
    async fn rule(&self, ctx: &Context<'_>) -> Result<Rule> {
        let found = ctx.load::<RuleByVersion>(self.0.version_id).await?;
        found.map(Rule::from).ok_or_else(|| domain::Error::not_found("rule", self.0.rule_id).into())
    }

    /// Values of the rule's evidence expressions: an object that maps each name to its value. Captured when the finding
    /// opened, or when the rule's inputs or result last changed. Empty for a caller without `ASSET_READ`.
    async fn evidence(&self, ctx: &Context<'_>) -> Result<Value> {
        shown_evidence(ctx, &self.0.evidence)
    }

    /// Time at which the asset passed the rule again. Null while the finding is live, and if the finding went out of
    /// scope.
    async fn fixed_at(&self) -> Option<DateTime<Utc>> {
        self.0.fixed_at()
    }

    /// Waiver that covers the failure. Null if no waiver covers it, and after the finding has ended.
    async fn waiver(&self, ctx: &Context<'_>) -> Result<Option<Waiver>> {
        let Some(waiver) = self.0.waiver_id else { return Ok(None) };
        Ok(ctx.load::<WaiverById>(waiver).await?.map(Waiver))
    }
}

/// Returns the evidence as an object, which is empty for a caller who may not read assets.
pub(crate) fn shown_evidence(ctx: &Context<'_>, evidence: &Evidence) -> Result<Value> {
    let shown = evidence.shown(AssetDetails::of(ctx.viewer()?));
    Ok(shown.cloned().unwrap_or_else(|| json!({})))
}

/// Returns a page of an asset's live findings, highest severity first.
pub(crate) async fn of_asset(
    ctx: &Context<'_>,
    asset: AssetId,
    first: Option<i32>,
    after: Option<String>,
) -> Result<Connection<Finding>> {
    let cursor_signing_keys = &ctx.services().cursors;
    let cursor_scope = CursorScope::new(ctx.viewer()?.org, "assetFindings", &asset);
    let page = PageArgs { first, after, ..PageArgs::default() }
        .check(cursor_signing_keys, &cursor_scope)?;
    let key = PageKey { owner: asset, page, total: wants_total(ctx) };
    let (page, total) = ctx.load::<FindingPages>(key).await?.unwrap_or((Page::EMPTY, None));
    Ok(Connection::new(
        page,
        cursor_signing_keys,
        &cursor_scope,
        total,
        finding::Finding::position,
        Finding,
    ))
}

/// Root fields that read findings.
#[derive(Default)]
pub(crate) struct FindingQuery;

#[Object]
impl FindingQuery {
    /// The finding with this id; null if there is none. Requires `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(ComplianceRead))]
    async fn finding(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The finding's id, beginning `fnd_`.")] id: FindingId,
    ) -> Result<Option<Finding>> {
        Ok(finding::Finding::find(&*ctx.read().await?, id).await?.map(Finding))
    }

    /// The organization's findings, highest severity first, then newest first. Requires `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(ComplianceRead))]
    async fn findings(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Filter for the findings; default `OPEN` and `WAIVED`.")] filter: Option<
            FindingFilter,
        >,
        #[graphql(desc = "Page size, 1 to 100; default 50.")] first: Option<i32>,
        #[graphql(desc = "Cursor after which the page starts.")] after: Option<String>,
        #[graphql(desc = "Page size from the end, 1 to 100.")] last: Option<i32>,
        #[graphql(desc = "Cursor before which the page ends.")] before: Option<String>,
    ) -> Result<Connection<Finding>> {
        let filter = filter.unwrap_or_default();
        let cursor_signing_keys = &ctx.services().cursors;
        let cursor_scope = CursorScope::new(ctx.viewer()?.org, "findings", &filter);
        let request =
            PageArgs { first, after, last, before }.check(cursor_signing_keys, &cursor_scope)?;
        let tx = ctx.read().await?;
        let counting: OptionFuture<_> =
            wants_total(ctx).then(|| finding::Finding::count(&tx, &filter)).into();
        let (page, total) = tokio::join!(finding::Finding::list(&tx, &filter, &request), counting);
        let total = total.transpose()?;
        Ok(Connection::new(
            page?,
            cursor_signing_keys,
            &cursor_scope,
            total,
            finding::Finding::position,
            Finding,
        ))
    }
}

/// Loads pages of the findings of several assets.
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
