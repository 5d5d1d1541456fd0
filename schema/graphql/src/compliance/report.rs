//! The report of a compliance run: GraphQL types and query. `report/print` serves the printable page and the CSV file
//! outside GraphQL. `report/content` reads the content of the page, and `report/page` renders the content as HTML.

use async_graphql::{Context, Object};
use chrono::{DateTime, Utc};
use domain::{
    access::{directive::requires, permission::Permission::ComplianceRead},
    base::page::{CursorScope, PageArgs},
    compliance::{
        report::{self, Family, Report},
        score::{Score, SeverityCount, VerdictCounts},
    },
    entity::RunId,
};
use futures_util::future::OptionFuture;

use crate::{
    compliance::{
        finding::Finding,
        rule::Rule,
        run::{ComplianceRun, run_of},
    },
    inventory::asset::{Asset, asset_of},
    request::{
        context::ContextExt,
        error::Result,
        page::{Connection, wants_total},
        row::{Row, rows},
    },
};

mod content;
mod page;
mod print;

pub use page::PrintedReport;
pub(crate) use print::{SUBJECT, print_report, report_file};

/// Default number of worst assets, also on the printed page.
const WORST: i32 = 20;

/// The report of a successful compliance run.
pub(crate) struct ComplianceReport(Report);

/// Report of a successful compliance run, for auditors and managers. A failure is a rule that an asset did not meet at
/// the end of the run. A failure is waived while a waiver, i.e. a time-limited exception from the rule, covers it. A
/// finding is the record of a failure, and remains open until the failure is fixed or goes out of scope. A printable
/// page of the newest run is at `/reports/compliance/latest.html`. Requires `COMPLIANCE_READ`.
#[Object(directive = requires::apply(ComplianceRead))]
impl ComplianceReport {
    /// The reported run; null before the first successful run.
    async fn run(&self, ctx: &Context<'_>) -> Result<Option<ComplianceRun>> {
        let Some(figures) = &self.0.figures else { return Ok(None) };
        run_of(ctx, figures.run).await.map(Some)
    }

    /// Time at which the report was generated.
    async fn generated_at(&self) -> DateTime<Utc> {
        self.0.generated_at
    }

    /// Name of the organization, as it is now.
    async fn organization(&self) -> &str {
        &self.0.organization
    }

    /// Score of the run. Null before the first successful run, and if the run assessed no rule on any asset.
    async fn score(&self) -> Option<Score> {
        self.0.score()
    }

    /// Score of the previous successful run with the same scope, i.e. of all assets or of the same selection of assets.
    /// Null if there is no such run, or if that run assessed no rule on any asset.
    async fn previous_score(&self) -> Option<Score> {
        self.0.previous_score()
    }

    /// Change of the weighted score since the previous successful run with the same scope, in percentage points;
    /// negative if the score fell. Null if there is no such run, or if one of the two runs has no score.
    async fn score_change(&self) -> Option<f64> {
        self.0.score_change()
    }

    /// Number of verdicts by result: passed, failed, waived, not assessed and errors. `failed` excludes waived
    /// failures; only `waived` counts these.
    async fn verdicts(&self) -> VerdictCounts {
        self.0.tally()
    }

    /// Number of failures without a waiver, by severity: all four severities, lowest first.
    async fn by_severity(&self) -> Vec<SeverityCount> {
        self.0.by_severity()
    }

    /// Results by control family, ordered by title.
    async fn families(&self) -> Vec<Family> {
        self.0.families()
    }

    /// Up to ten rules with the highest weight of failures. Fixes of these rules raise the weighted score most.
    async fn remediations(&self) -> Vec<Remediation> {
        self.0.remediations().into_iter().map(Remediation).collect()
    }

    /// Assets with the highest total weight of failures at the end of the run, worst first. Waived failures do not
    /// count.
    async fn worst_assets(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Number of assets, 1 to 100; default 20.", default_with = "Some(WORST)")]
        first: Option<i32>,
    ) -> Result<Vec<Row<WorstAsset>>> {
        let worst = self.0.worst_assets(&*ctx.read().await?, first.unwrap_or(WORST)).await?;
        Ok(rows(worst.into_iter().map(WorstAsset)))
    }

    /// Findings that were open when the run ended, including waived findings: highest severity first, then newest
    /// first.
    async fn findings(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Page size, 1 to 100; default 50.")] first: Option<i32>,
        #[graphql(desc = "Cursor after which the page starts.")] after: Option<String>,
    ) -> Result<Connection<Finding>> {
        let cursor_signing_keys = &ctx.services().cursors;
        let run = self.0.figures.as_ref().map(|figures| figures.run);
        let cursor_scope = CursorScope::new(ctx.viewer()?.org, "reportFindings", &run);
        let request = PageArgs { first, after, ..PageArgs::default() }
            .check(cursor_signing_keys, &cursor_scope)?;
        let tx = ctx.read().await?;
        let counting: OptionFuture<_> = wants_total(ctx).then(|| self.0.count_findings(&tx)).into();
        let (page, total) = tokio::join!(self.0.findings(&tx, &request), counting);
        let total = total.transpose()?;
        Ok(Connection::new(
            page?,
            cursor_signing_keys,
            &cursor_scope,
            total,
            domain::compliance::finding::Finding::position,
            Finding,
        ))
    }

    /// Rules in the versions that the run used.
    async fn rules(&self) -> Vec<Row<Rule>> {
        rows(self.0.rules.iter().cloned().map(Rule::from))
    }
}

/// Gain of the weighted score if no asset failed the rule any more.
pub(crate) struct Remediation(report::Remediation);

/// Gain of the weighted score if no asset failed the rule any more. Requires `COMPLIANCE_READ`.
#[Object(directive = requires::apply(ComplianceRead))]
impl Remediation {
    /// The rule in the version that the run used.
    async fn rule(&self) -> Rule {
        self.0.rule.clone().into()
    }

    /// Number of assets that failed the rule without a waiver.
    async fn assets(&self) -> i64 {
        self.0.assets
    }

    /// Total weight of these failures.
    async fn recoverable_weight(&self) -> i64 {
        self.0.recoverable_weight
    }

    /// Rise of the weighted score in percentage points.
    async fn score_gain(&self) -> f64 {
        self.0.score_gain
    }
}

/// An asset with failures at the end of the run.
pub(crate) struct WorstAsset(report::WorstAsset);

/// Asset with failures at the end of the run. Requires `COMPLIANCE_READ`.
#[Object(directive = requires::apply(ComplianceRead))]
impl WorstAsset {
    /// The asset that failed rules.
    async fn asset(&self, ctx: &Context<'_>) -> Result<Asset> {
        asset_of(ctx, self.0.asset).await
    }

    /// Number of rules that the asset failed without a waiver.
    async fn failed(&self) -> i64 {
        self.0.failed
    }

    /// Total weight of these failures.
    async fn failed_weight(&self) -> i64 {
        self.0.failed_weight
    }
}

/// Root field that reads reports.
#[derive(Default)]
pub(crate) struct ReportQuery;

#[Object]
impl ReportQuery {
    /// Report of a successful compliance run. Before the first successful run, the report has no numbers. Fails with
    /// `CONFLICT` if the given run did not succeed. The printable page and all findings as CSV are at
    /// `GET /reports/compliance/{run}.html` and `.csv`. Requires `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(ComplianceRead))]
    async fn compliance_report(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The run's id; default the newest successful run of all assets.")]
        run: Option<RunId>,
    ) -> Result<ComplianceReport> {
        Ok(ComplianceReport(Report::of(&*ctx.read().await?, run, ctx.now()).await?))
    }
}
