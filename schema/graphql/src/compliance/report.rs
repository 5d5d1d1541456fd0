//! The report of a run: the views, the query. (`report/print`: the ways out that are no documents; `report/content` and
//! `report/page`: what is printed, and as HTML.)

use async_graphql::{Context, Object};
use chrono::{DateTime, Utc};
use domain::{
    access::{directive::requires, permission::Permission::ComplianceRead},
    base::page::{CursorScope, PageArgs},
    compliance::{
        report::{self, Family, Report},
        score::{Score, SeverityCount, Tally},
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
    },
};

mod content;
mod page;
mod print;

pub use page::Printed;
pub(crate) use print::{print_report, report_file};

/// Assets that a report names where nobody says how many, as on its page.
const WORST: i32 = 20;

/// What a run found.
pub(crate) struct ComplianceReport(Report);

/// What a run found, for who answers for it; to print at `/reports/compliance/latest.html`. Takes `COMPLIANCE_READ`.
#[Object(directive = requires::apply(ComplianceRead))]
impl ComplianceReport {
    /// The run; null where none succeeded yet.
    async fn run(&self, ctx: &Context<'_>) -> Result<Option<ComplianceRun>> {
        let Some(figures) = &self.0.figures else { return Ok(None) };
        run_of(ctx, figures.run).await.map(Some)
    }

    /// When it was made.
    async fn generated_at(&self) -> DateTime<Utc> {
        self.0.generated_at
    }

    /// The organization's name.
    async fn organization(&self) -> &str {
        &self.0.organization
    }

    /// The run's score; null where there is no run, or it judged nothing.
    async fn score(&self) -> Option<Score> {
        self.0.score()
    }

    /// The score of the run of the same assets before it.
    async fn previous_score(&self) -> Option<Score> {
        self.0.previous_score()
    }

    /// How many points the weighted score rose since that run; null where there is nothing to compare.
    async fn score_change(&self) -> Option<f64> {
        self.0.score_change()
    }

    /// How many verdicts there are of each kind.
    async fn verdicts(&self) -> Tally {
        self.0.tally()
    }

    /// Failures by severity: all four, the least first.
    async fn by_severity(&self) -> Vec<SeverityCount> {
        self.0.by_severity()
    }

    /// How the families of controls stand, by title.
    async fn families(&self) -> Vec<Family> {
        self.0.families()
    }

    /// What would raise the score most, at most ten.
    async fn remediations(&self) -> Vec<Remediation> {
        self.0.remediations().into_iter().map(Remediation).collect()
    }

    /// The assets whose failures weigh most, without what a waiver allows.
    async fn worst_assets(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many at most, up to 100.", default_with = "Some(WORST)")]
        first: Option<i32>,
    ) -> Result<Vec<WorstAsset>> {
        let worst = self.0.worst_assets(&*ctx.read().await?, first.unwrap_or(WORST)).await?;
        Ok(worst.into_iter().map(WorstAsset).collect())
    }

    /// What was broken when the run ended: the worst first, of equal ones the newest.
    async fn findings(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many from the start, up to 100; 50 without it.")] first: Option<i32>,
        #[graphql(desc = "After this cursor.")] after: Option<String>,
    ) -> Result<Connection<Finding>> {
        let keys = &ctx.services().cursors;
        let run = self.0.figures.as_ref().map(|figures| figures.run);
        let scope = CursorScope::new(ctx.viewer()?.org, "reportFindings", &run);
        let request = PageArgs { first, after, ..PageArgs::default() }.check(keys, &scope)?;
        let tx = ctx.read().await?;
        let counting: OptionFuture<_> = wants_total(ctx).then(|| self.0.count_findings(&tx)).into();
        let (page, total) = tokio::join!(self.0.findings(&tx, &request), counting);
        let total = total.transpose()?;
        Ok(Connection::new(
            page?,
            keys,
            &scope,
            total,
            domain::compliance::finding::Finding::position,
            Finding,
        ))
    }

    /// The rules that the run judged by, as they were then.
    async fn rules(&self) -> Vec<Rule> {
        self.0.rules.iter().cloned().map(Rule::from).collect()
    }
}

/// What would be gained if no asset broke a rule.
pub(crate) struct Remediation(report::Remediation);

/// What would be gained if no asset broke a rule. Takes `COMPLIANCE_READ`.
#[Object(directive = requires::apply(ComplianceRead))]
impl Remediation {
    /// The rule, as it was then.
    async fn rule(&self) -> Rule {
        self.0.rule.clone().into()
    }

    /// How many assets broke it, without what a waiver allows.
    async fn assets(&self) -> i64 {
        self.0.assets
    }

    /// How much these failures weigh.
    async fn recoverable_weight(&self) -> i64 {
        self.0.recoverable_weight
    }

    /// How many points the weighted score would rise.
    async fn score_gain(&self) -> f64 {
        self.0.score_gain
    }
}

/// An asset that fails.
pub(crate) struct WorstAsset(report::WorstAsset);

/// An asset that fails. Takes `COMPLIANCE_READ`.
#[Object(directive = requires::apply(ComplianceRead))]
impl WorstAsset {
    /// Which one.
    async fn asset(&self, ctx: &Context<'_>) -> Result<Asset> {
        asset_of(ctx, self.0.asset).await
    }

    /// How many rules it broke.
    async fn failed(&self) -> i64 {
        self.0.failed
    }

    /// How much these weigh.
    async fn failed_weight(&self) -> i64 {
        self.0.failed_weight
    }
}

/// Queries on reports.
#[derive(Default)]
pub(crate) struct ReportQuery;

#[Object]
impl ReportQuery {
    /// The report of a run that succeeded; where there is none yet, a report without numbers. To print it or to have all
    /// findings as CSV: `GET /reports/compliance/{run}.html` and `.csv`. Takes `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(ComplianceRead))]
    async fn compliance_report(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which run; the newest of all assets that succeeded without it.")]
        run: Option<RunId>,
    ) -> Result<ComplianceReport> {
        Ok(ComplianceReport(Report::of(&*ctx.read().await?, run, ctx.now()).await?))
    }
}
