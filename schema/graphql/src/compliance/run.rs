//! Compliance runs: the view, the queries, the mutations.

use async_graphql::{Context, Object};
use domain::{
    access::{
        directive::{authenticated, requires},
        permission::Permission::{ComplianceRead, ComplianceRun as MayRun},
    },
    base::page::{PageArgs, Scope},
    compliance::{
        run::{self, RunTrigger},
        scope::ScanScope,
        score::Score,
    },
    entity::RunId,
};
use futures_util::future::OptionFuture;
use jobs::compliance::run::{push_shards, push_turn};

use crate::{
    access::actor::{Actor, actor},
    request::{
        context::{ContextExt, take_scan},
        error::Result,
        page::{Connection, wants_total},
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
        if self.0.state != run::RunState::Succeeded {
            return Ok(None);
        }
        let figures = ctx.loaders().figures.load_one(self.0.id).await?;
        Ok(figures.and_then(|figures| figures.score()))
    }
}

/// The run that a row names.
pub(crate) async fn run_of(ctx: &Context<'_>, id: RunId) -> Result<ComplianceRun> {
    let found = ctx.loaders().runs.load_one(id).await?;
    found.map(ComplianceRun).ok_or_else(|| domain::Error::not_found("compliance run", id).into())
}

/// Queries on compliance.
#[derive(Default)]
pub(crate) struct ComplianceQuery;

#[Object]
impl ComplianceQuery {
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
        let scope = Scope::new(ctx.viewer()?.org, "complianceRuns", &());
        let request = PageArgs { first, after, last, before }.check(keys, &scope)?;
        let tx = ctx.read().await?;
        let counting: OptionFuture<_> = wants_total(ctx).then(|| run::Run::count(&tx)).into();
        let (page, total) = tokio::join!(run::Run::list(&tx, &request), counting);
        let total = total.transpose()?;
        Ok(Connection::new(page?, keys, &scope, total, run::Run::place, ComplianceRun))
    }
}

/// Mutations of compliance.
#[derive(Default)]
pub(crate) struct ComplianceMutation;

#[Object]
impl ComplianceMutation {
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
        take_scan(ctx).await?;
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
        push_turn(&tx).await?;
        tx.commit().await?;
        Ok(ComplianceRun(run))
    }
}
