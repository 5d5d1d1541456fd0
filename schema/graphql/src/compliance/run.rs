//! GraphQL type, queries, mutations and subscription of compliance runs.

use std::collections::HashMap;

use async_graphql::{Context, Object, Subscription};
use domain::{
    Id,
    access::{
        directive::{authenticated, requires},
        permission::Permission::{self, ComplianceRead, ComplianceRun as MayRun},
    },
    base::{
        entity::Entity,
        page::{CursorScope, PageArgs},
        run_state::RunState,
    },
    compliance::{
        run::{self, RunTrigger},
        scope::ScanScope,
        score::{Figures, Score},
    },
    entity::{self, RunId},
};
use futures_util::{Stream, future::OptionFuture, stream};
use jobs::compliance::{posture::push_flip, run::push_shards};

use crate::{
    access::actor::{Actor, actor},
    compliance::quota::consume_run_quota,
    document::policy::{FieldPolicy, Policy::StartsJobs},
    request::{
        context::{ContextExt, RequestScope},
        error::Result,
        loader::{Batch, Load},
        no_null::check_no_null,
        node::Identified,
        page::{Connection, wants_total},
        subscription_state::SubscriptionState,
    },
};

/// A compliance run of all assets or of a scope.
pub(crate) struct ComplianceRun(pub(crate) run::Run);

/// A compliance run of all assets or of a scope. Any signed-in caller can read the state and progress, so a caller that
/// may start runs but not read results can wait for the end. Results require `COMPLIANCE_READ`.
#[Object(directive = authenticated::apply())]
impl ComplianceRun {
    #[graphql(flatten)]
    async fn row(&self) -> &run::Run {
        &self.0
    }

    /// The actor on whose behalf the run was started; null if the user or API key no longer exists.
    async fn started_by(&self, ctx: &Context<'_>) -> Result<Option<Actor>> {
        actor(ctx, self.0.actor).await
    }

    /// Score of the run. Null until the run has succeeded, and if the run assessed no rule on any asset. Requires
    /// `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(ComplianceRead))]
    async fn score(&self, ctx: &Context<'_>) -> Result<Option<Score>> {
        if self.0.state != RunState::Succeeded {
            return Ok(None);
        }
        let figures = ctx.load::<FiguresOfRun>(self.0.id).await?;
        Ok(figures.and_then(|figures| figures.score()))
    }
}

/// Loads the run with this id.
pub(crate) async fn run_of(ctx: &Context<'_>, id: RunId) -> Result<ComplianceRun> {
    let found = ctx.load::<RunById>(id).await?;
    found.map(ComplianceRun).ok_or_else(|| domain::Error::not_found("compliance run", id).into())
}

/// Root fields that read compliance runs.
#[derive(Default)]
pub(crate) struct RunQuery;

#[Object]
impl RunQuery {
    /// The compliance run with this id; null if there is none. Requires `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(ComplianceRead))]
    async fn compliance_run(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The run's id, beginning `run_`.")] id: RunId,
    ) -> Result<Option<ComplianceRun>> {
        Ok(run::Run::find(&*ctx.read().await?, id).await?.map(ComplianceRun))
    }

    /// The organization's compliance runs, newest first. Requires `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(ComplianceRead))]
    async fn compliance_runs(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Page size, 1 to 100; default 50.")] first: Option<i32>,
        #[graphql(desc = "Cursor after which the page starts.")] after: Option<String>,
        #[graphql(desc = "Page size from the end, 1 to 100.")] last: Option<i32>,
        #[graphql(desc = "Cursor before which the page ends.")] before: Option<String>,
    ) -> Result<Connection<ComplianceRun>> {
        let cursor_signing_keys = &ctx.services().cursors;
        let cursor_scope = CursorScope::new(ctx.viewer()?.org, "complianceRuns", &());
        let request =
            PageArgs { first, after, last, before }.check(cursor_signing_keys, &cursor_scope)?;
        let tx = ctx.read().await?;
        let counting: OptionFuture<_> = wants_total(ctx).then(|| run::Run::count(&tx)).into();
        let (page, total) = tokio::join!(run::Run::list(&tx, &request), counting);
        let total = total.transpose()?;
        Ok(Connection::new(
            page?,
            cursor_signing_keys,
            &cursor_scope,
            total,
            run::Run::position,
            ComplianceRun,
        ))
    }
}

/// Policies of the field that starts a compliance run.
pub(crate) const POLICIES: &[FieldPolicy] =
    &[FieldPolicy { on: "Mutation", field: "startComplianceRun", policies: &[StartsJobs] }];

/// Root fields that start and cancel compliance runs.
#[derive(Default)]
pub(crate) struct RunMutation;

#[Object]
impl RunMutation {
    /// Starts a run that evaluates all assets in operation, or those in `scope`, against every enabled rule. Returns
    /// immediately; workers evaluate the assets. If a run of the same scope has not ended yet, returns that run.
    /// Requires `COMPLIANCE_RUN`.
    #[graphql(directive = requires::apply(MayRun))]
    async fn start_compliance_run(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Filter for the assets to evaluate; default all in operation.")]
        scope: Option<ScanScope>,
        #[graphql(
            desc = "Idempotency key, 1 to 255 characters: a repeated key starts no new run and returns the first run."
        )]
        idempotency_key: Option<String>,
    ) -> Result<ComplianceRun> {
        check_no_null(ctx, "scope")?;
        consume_run_quota(ctx).await?;
        let tx = ctx.write().await?;
        let (scope, key) = (scope.as_ref(), idempotency_key.as_deref());
        let started = run::Run::start(&tx, RunTrigger::Manual, scope, key, ctx.now()).await?;
        let run = push_shards(&tx, started).await?;
        tx.commit().await?;
        Ok(ComplianceRun(run))
    }

    /// Cancels a run that has not ended. Requires `COMPLIANCE_RUN`.
    #[graphql(directive = requires::apply(MayRun))]
    async fn cancel_compliance_run(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The run's id, beginning `run_`.")] id: RunId,
    ) -> Result<ComplianceRun> {
        let tx = ctx.write().await?;
        let run = run::Run::cancel(&tx, id, ctx.now()).await?;
        push_flip(&tx).await?;
        tx.commit().await?;
        Ok(ComplianceRun(run))
    }
}

/// Root field that streams a compliance run.
#[derive(Default)]
pub(crate) struct RunSubscription;

#[Subscription]
impl RunSubscription {
    /// The current state of a compliance run, then an update after each change. Completes when the run
    /// has ended. Requires `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(ComplianceRead))]
    async fn compliance_run(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The run's id, beginning `run_`.")] id: RunId,
    ) -> Result<impl Stream<Item = ComplianceRun> + use<>> {
        let subscription = SubscriptionState::of(ctx);
        subscription.subscribe_to_hints(ctx, &[entity::Run::PREFIX], Some(id.uuid()))?;
        let run = run::Run::get(&*ctx.read().await?, id).await?;
        if run.state.has_ended() {
            subscription.complete();
        }
        Ok(stream::iter([ComplianceRun(run)]))
    }
}

/// Loads compliance runs by id.
pub(crate) struct RunById;

impl Batch for RunById {
    type Key = RunId;
    type Row = run::Run;

    async fn load(scope: &RequestScope, ids: &[RunId]) -> Result<HashMap<RunId, run::Run>> {
        let runs = run::Run::of_ids(&*scope.read().await?, ids).await?;
        Ok(runs.into_iter().map(|run| (run.id, run)).collect())
    }
}

/// Loads the figures of compliance runs: their sums and tallies.
pub(crate) struct FiguresOfRun;

impl Batch for FiguresOfRun {
    type Key = RunId;
    type Row = Figures;

    async fn load(scope: &RequestScope, runs: &[RunId]) -> Result<HashMap<RunId, Figures>> {
        Ok(Figures::of_runs(&*scope.read().await?, runs).await?)
    }
}

impl Identified for ComplianceRun {
    type Entity = entity::Run;

    const REQUIRES: Option<Permission> = Some(ComplianceRead);

    fn row_id(&self) -> Id<entity::Run> {
        self.0.id
    }

    async fn find(ctx: &Context<'_>, id: Id<entity::Run>) -> Result<Option<Self>> {
        Ok(run::Run::find(&*ctx.read().await?, id).await?.map(Self))
    }
}
