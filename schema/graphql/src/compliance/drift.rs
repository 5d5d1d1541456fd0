//! Drift and trend: GraphQL types and queries. Drift is the set of rules that began to fail or to pass between two
//! runs.

use async_graphql::{Context, Object};
use domain::{
    access::{directive::requires, permission::Permission::ComplianceRead},
    base::page::{CursorScope, PageArgs},
    compliance::{
        drift::{self, Direction},
        score::Score,
    },
    entity::RunId,
};
use futures_util::future::OptionFuture;

use crate::{
    compliance::{
        finding::Finding,
        run::{ComplianceRun, run_of},
    },
    request::{
        context::ContextExt,
        error::Result,
        page::{Connection, wants_total},
    },
};

/// Default number of runs in a trend.
const TREND: i32 = 30;

/// Changes from one compliance run to a later run.
pub(crate) struct Drift(drift::Drift);

/// Rules that began to fail or to pass between the ends of two runs. Changes outside of runs are included. Requires
/// `COMPLIANCE_READ`.
#[Object(directive = requires::apply(ComplianceRead))]
impl Drift {
    /// The earlier of the two runs.
    async fn from(&self, ctx: &Context<'_>) -> Result<ComplianceRun> {
        run_of(ctx, self.0.from.run).await
    }

    /// The later of the two runs.
    async fn to(&self, ctx: &Context<'_>) -> Result<ComplianceRun> {
        run_of(ctx, self.0.to.run).await
    }

    /// Findings that were live at the end of the later run, of rules that the asset did not fail at the end of the
    /// earlier run. Highest severity first.
    async fn newly_failing(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Page size, 1 to 100; default 50.")] first: Option<i32>,
        #[graphql(desc = "Cursor after which the page starts.")] after: Option<String>,
    ) -> Result<Connection<Finding>> {
        self.page(ctx, Direction::Failing, first, after).await
    }

    /// Findings that were live at the end of the earlier run and had been fixed by the end of the later run. Highest
    /// severity first. Findings that went out of scope are not included.
    async fn newly_passing(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Page size, 1 to 100; default 50.")] first: Option<i32>,
        #[graphql(desc = "Cursor after which the page starts.")] after: Option<String>,
    ) -> Result<Connection<Finding>> {
        self.page(ctx, Direction::Passing, first, after).await
    }

    /// Change of the weighted score from the earlier to the later run, in percentage points; negative if the score
    /// fell. Null if one of the runs has no score or the runs differ in scope.
    async fn score_change(&self) -> Option<f64> {
        self.0.score_change()
    }
}

impl Drift {
    async fn page(
        &self,
        ctx: &Context<'_>,
        direction: Direction,
        first: Option<i32>,
        after: Option<String>,
    ) -> Result<Connection<Finding>> {
        let cursor_signing_keys = &ctx.services().cursors;
        let between = (direction, self.0.from.run, self.0.to.run);
        let cursor_scope = CursorScope::new(ctx.viewer()?.org, "drift", &between);
        let request = PageArgs { first, after, ..PageArgs::default() }
            .check(cursor_signing_keys, &cursor_scope)?;
        let tx = ctx.read().await?;
        let counting: OptionFuture<_> =
            wants_total(ctx).then(|| self.0.count(&tx, direction)).into();
        let (page, total) = tokio::join!(self.0.list(&tx, direction, &request), counting);
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
}

/// The score of one run in a trend.
pub(crate) struct TrendPoint {
    run: RunId,
    score: Option<Score>,
}

/// Score of one run in a trend. Requires `COMPLIANCE_READ`.
#[Object(directive = requires::apply(ComplianceRead))]
impl TrendPoint {
    /// The run to which the score belongs.
    async fn run(&self, ctx: &Context<'_>) -> Result<ComplianceRun> {
        run_of(ctx, self.run).await
    }

    /// Score of the run; null if the run assessed no rule on any asset.
    async fn score(&self) -> Option<&Score> {
        self.score.as_ref()
    }
}

/// Root fields that read drift and trend.
#[derive(Default)]
pub(crate) struct DriftQuery;

#[Object]
impl DriftQuery {
    /// Changes from one compliance run to a later run. Fails with `CONFLICT` if one of the runs did not succeed.
    /// Requires `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(ComplianceRead))]
    async fn compliance_drift(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Id of the earlier run.")] from: RunId,
        #[graphql(desc = "Id of the later run.")] to: RunId,
    ) -> Result<Drift> {
        Ok(Drift(drift::Drift::between(&*ctx.read().await?, from, to).await?))
    }

    /// Scores of the most recent successful runs of all assets, oldest first. Requires `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(ComplianceRead))]
    async fn compliance_trend(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Number of runs, 1 to 100; default 30.", default_with = "Some(TREND)")]
        last: Option<i32>,
    ) -> Result<Vec<TrendPoint>> {
        let runs = drift::trend(&*ctx.read().await?, last.unwrap_or(TREND)).await?;
        Ok(runs.into_iter().map(|(run, score)| TrendPoint { run, score }).collect())
    }
}
