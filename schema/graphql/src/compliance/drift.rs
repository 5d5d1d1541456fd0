//! What changed between runs, and how the score went: the views, the queries.

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

/// Runs of a trend where nobody says how many.
const TREND: i32 = 30;

/// What changed from one run to a later one.
pub(crate) struct Drift(drift::Drift);

/// What changed from the end of one run to that of a later one, by changes as well as by runs. Takes `COMPLIANCE_READ`.
#[Object(directive = requires::apply(ComplianceRead))]
impl Drift {
    /// The earlier run.
    async fn from(&self, ctx: &Context<'_>) -> Result<ComplianceRun> {
        run_of(ctx, self.0.from.run).await
    }

    /// The later run.
    async fn to(&self, ctx: &Context<'_>) -> Result<ComplianceRun> {
        run_of(ctx, self.0.to.run).await
    }

    /// What was broken at the end of the later run and not at that of the earlier, the worst first.
    async fn newly_failing(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many from the start, up to 100; 50 without it.")] first: Option<i32>,
        #[graphql(desc = "After this cursor.")] after: Option<String>,
    ) -> Result<Connection<Finding>> {
        self.page(ctx, Direction::Failing, first, after).await
    }

    /// What was broken at the end of the earlier run and fixed by that of the later, the worst first; without what went out
    /// of scope.
    async fn newly_passing(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many from the start, up to 100; 50 without it.")] first: Option<i32>,
        #[graphql(desc = "After this cursor.")] after: Option<String>,
    ) -> Result<Connection<Finding>> {
        self.page(ctx, Direction::Passing, first, after).await
    }

    /// How many points the weighted score rose; null where one of the runs has none, or they were of different assets.
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
        let keys = &ctx.services().cursors;
        let between = (direction, self.0.from.run, self.0.to.run);
        let scope = CursorScope::new(ctx.viewer()?.org, "drift", &between);
        let request = PageArgs { first, after, ..PageArgs::default() }.check(keys, &scope)?;
        let tx = ctx.read().await?;
        let counting: OptionFuture<_> =
            wants_total(ctx).then(|| self.0.count(&tx, direction)).into();
        let (page, total) = tokio::join!(self.0.list(&tx, direction, &request), counting);
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
}

/// The score of one run.
pub(crate) struct TrendPoint {
    run: RunId,
    score: Option<Score>,
}

/// The score of one run. Takes `COMPLIANCE_READ`.
#[Object(directive = requires::apply(ComplianceRead))]
impl TrendPoint {
    /// The run.
    async fn run(&self, ctx: &Context<'_>) -> Result<ComplianceRun> {
        run_of(ctx, self.run).await
    }

    /// Its score; null where it judged nothing.
    async fn score(&self) -> Option<&Score> {
        self.score.as_ref()
    }
}

/// Queries on what changed.
#[derive(Default)]
pub(crate) struct DriftQuery;

#[Object]
impl DriftQuery {
    /// What changed from one run to a later one; both must have succeeded. Takes `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(ComplianceRead))]
    async fn compliance_drift(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The earlier run.")] from: RunId,
        #[graphql(desc = "The later run.")] to: RunId,
    ) -> Result<Drift> {
        Ok(Drift(drift::Drift::between(&*ctx.read().await?, from, to).await?))
    }

    /// The scores of the last runs of all assets that succeeded, oldest first. Takes `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(ComplianceRead))]
    async fn compliance_trend(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many, up to 100.", default_with = "Some(TREND)")] last: Option<i32>,
    ) -> Result<Vec<TrendPoint>> {
        let runs = drift::trend(&*ctx.read().await?, last.unwrap_or(TREND)).await?;
        Ok(runs.into_iter().map(|(run, score)| TrendPoint { run, score }).collect())
    }
}
