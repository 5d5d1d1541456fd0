//! What can be watched: the root fields.

use std::time::Duration;

use async_graphql::{Context, Subscription};
use domain::{
    access::{
        directive::requires,
        permission::Permission::{AssetRead, ComplianceRead, JobRead},
    },
    base::entity::Entity,
    compliance::run::Run,
    entity::{self, ImportRunId, RunId},
    fleet::job::{self, Queue},
    inventory::import,
};
use futures_util::{Stream, stream};

use crate::{
    compliance::run::ComplianceRun,
    fleet::job::Job,
    inventory::import::ImportRun,
    request::{context::ContextExt, error::Result, watch::Watch},
};

/// Queues move faster than anybody reads.
const JOBS: Duration = Duration::from_millis(500);

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
        let run = Run::get(&*ctx.read().await?, id).await?;
        if run.state.has_ended() {
            watch.end();
        }
        Ok(stream::iter([ComplianceRun(run)]))
    }
}

/// Subscriptions to imports.
#[derive(Default)]
pub(crate) struct ImportSubscription;

#[Subscription]
impl ImportSubscription {
    /// An import: at once, then at each advance; ends with the import. Takes `ASSET_READ`.
    #[graphql(directive = requires::apply(AssetRead))]
    async fn import_run(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which one.")] id: ImportRunId,
    ) -> Result<impl Stream<Item = ImportRun> + use<>> {
        let watch = Watch::of(ctx);
        watch.listen(ctx, &[entity::ImportRun::PREFIX], Some(id.uuid()))?;
        let run = import::ImportRun::get(&*ctx.read().await?, id).await?;
        if run.state.has_ended() {
            watch.end();
        }
        Ok(stream::iter([ImportRun(run)]))
    }
}

/// Subscriptions to jobs.
#[derive(Default)]
pub(crate) struct JobSubscription;

#[Subscription]
impl JobSubscription {
    /// Jobs as they change from now on, twice a second; of more than a hundred at once the latest. Takes `JOB_READ`.
    #[graphql(directive = requires::apply(JobRead))]
    async fn jobs(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Of this queue; of all without it.")] queue: Option<Queue>,
    ) -> Result<impl Stream<Item = Job> + use<>> {
        let watch = Watch::of(ctx);
        watch.listen(ctx, &[entity::Job::PREFIX], None)?;
        watch.at_most_every(JOBS);
        watch.each_counts();
        let (since, alive) = watch.recent().begin();
        let changed = job::Job::changed(&*ctx.read().await?, queue, since, &alive).await?;
        let mut recent = watch.recent();
        let jobs = recent.take_new(changed.jobs, |job| job.id.uuid(), changed.at);
        for job in &jobs {
            recent.note(job.id.uuid(), job.finished_at.is_none());
        }
        Ok(stream::iter(jobs.into_iter().map(Job)))
    }
}
