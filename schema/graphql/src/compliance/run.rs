//! Compliance runs: the view, the queries, the mutations, the subscription.

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
    compliance::quota::take_run,
    request::{
        context::{ContextExt, RequestScope},
        error::Result,
        loader::{Batch, Load},
        node::Identified,
        page::{Connection, wants_total},
        watch::Watch,
    },
};

/// One compliance run.
pub(crate) struct ComplianceRun(pub(crate) run::Run);

/// One compliance run. Everybody signed in sees where it is, so that whoever may only start runs can wait for them; what
/// it found takes `COMPLIANCE_READ`.
#[Object(directive = authenticated::apply())]
impl ComplianceRun {
    #[graphql(flatten)]
    async fn row(&self) -> &run::Run {
        &self.0
    }

    /// On whose behalf it runs.
    async fn started_by(&self, ctx: &Context<'_>) -> Result<Option<Actor>> {
        actor(ctx, self.0.actor).await
    }

    /// How much of what it judged holds; null until it succeeded, and where it judged nothing. Takes `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(ComplianceRead))]
    async fn score(&self, ctx: &Context<'_>) -> Result<Option<Score>> {
        if self.0.state != RunState::Succeeded {
            return Ok(None);
        }
        let figures = ctx.load::<FiguresOfRun>(self.0.id).await?;
        Ok(figures.and_then(|figures| figures.score()))
    }
}

/// The run that a row names.
pub(crate) async fn run_of(ctx: &Context<'_>, id: RunId) -> Result<ComplianceRun> {
    let found = ctx.load::<RunById>(id).await?;
    found.map(ComplianceRun).ok_or_else(|| domain::Error::not_found("compliance run", id).into())
}

/// Queries on compliance.
#[derive(Default)]
pub(crate) struct RunQuery;

#[Object]
impl RunQuery {
    /// One run, or null. Takes `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(ComplianceRead))]
    async fn compliance_run(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Its id.")] id: RunId,
    ) -> Result<Option<ComplianceRun>> {
        Ok(run::Run::find(&*ctx.read().await?, id).await?.map(ComplianceRun))
    }

    /// The organization's runs, newest first. Takes `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(ComplianceRead))]
    async fn compliance_runs(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many from the start, up to 100; 50 without it.")] first: Option<i32>,
        #[graphql(desc = "After this cursor.")] after: Option<String>,
        #[graphql(desc = "How many from the end, up to 100.")] last: Option<i32>,
        #[graphql(desc = "Before this cursor.")] before: Option<String>,
    ) -> Result<Connection<ComplianceRun>> {
        let keys = &ctx.services().cursors;
        let scope = CursorScope::new(ctx.viewer()?.org, "complianceRuns", &());
        let request = PageArgs { first, after, last, before }.check(keys, &scope)?;
        let tx = ctx.read().await?;
        let counting: OptionFuture<_> = wants_total(ctx).then(|| run::Run::count(&tx)).into();
        let (page, total) = tokio::join!(run::Run::list(&tx, &request), counting);
        let total = total.transpose()?;
        Ok(Connection::new(page?, keys, &scope, total, run::Run::position, ComplianceRun))
    }
}

/// Mutations of compliance.
#[derive(Default)]
pub(crate) struct RunMutation;

#[Object]
impl RunMutation {
    /// Judges all assets in operation, or those in scope, by every rule; answers at once, workers do it. While a run of the
    /// same scope is under way, it is that run. Takes `COMPLIANCE_RUN`.
    #[graphql(directive = requires::apply(MayRun))]
    async fn start_compliance_run(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which assets; all in operation without it.")] scope: Option<ScanScope>,
        #[graphql(
            desc = "A text of yours, up to 255 characters: the same one again starts nothing and answers with the first run."
        )]
        idempotency_key: Option<String>,
    ) -> Result<ComplianceRun> {
        take_run(ctx).await?;
        let tx = ctx.write().await?;
        let (scope, key) = (scope.as_ref(), idempotency_key.as_deref());
        let started = run::Run::start(&tx, RunTrigger::Manual, scope, key, ctx.now()).await?;
        let run = push_shards(&tx, started).await?;
        tx.commit().await?;
        Ok(ComplianceRun(run))
    }

    /// Ends a run before it is done. Takes `COMPLIANCE_RUN`.
    #[graphql(directive = requires::apply(MayRun))]
    async fn cancel_compliance_run(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Its id.")] id: RunId,
    ) -> Result<ComplianceRun> {
        let tx = ctx.write().await?;
        let run = run::Run::cancel(&tx, id, ctx.now()).await?;
        push_flip(&tx).await?;
        tx.commit().await?;
        Ok(ComplianceRun(run))
    }
}

/// Subscriptions to compliance runs.
#[derive(Default)]
pub(crate) struct RunSubscription;

#[Subscription]
impl RunSubscription {
    /// A compliance run: at once, then at each advance; ends with the run. Takes `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(ComplianceRead))]
    async fn compliance_run(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which one.")] id: RunId,
    ) -> Result<impl Stream<Item = ComplianceRun> + use<>> {
        let watch = Watch::of(ctx);
        watch.listen(ctx, &[entity::Run::PREFIX], Some(id.uuid()))?;
        let run = run::Run::get(&*ctx.read().await?, id).await?;
        if run.state.has_ended() {
            watch.end();
        }
        Ok(stream::iter([ComplianceRun(run)]))
    }
}

/// A compliance run by id.
pub(crate) struct RunById;

impl Batch for RunById {
    type Key = RunId;
    type Row = run::Run;

    async fn load(scope: &RequestScope, ids: &[RunId]) -> Result<HashMap<RunId, run::Run>> {
        let runs = run::Run::of_ids(&*scope.read().await?, ids).await?;
        Ok(runs.into_iter().map(|run| (run.id, run)).collect())
    }
}

/// The numbers that a compliance run found.
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
