//! Jobs and their queues: the views, the queries, the mutations, the subscription.

use std::time::Duration;

use async_graphql::{Context, Object, Subscription};
use domain::{
    Id,
    access::{
        directive::requires,
        permission::Permission::{self, FleetRead, JobManage, JobRead},
    },
    base::{
        entity::Entity,
        page::{CursorScope, PageArgs},
    },
    entity::{self, JobId},
    fleet::job::{self, JobFilter, Queue, QueueStats},
};
use futures_util::{Stream, future::OptionFuture, stream};

use crate::{
    access::actor::{Actor, actor},
    request::{
        context::ContextExt,
        error::{Error, ErrorCode, Result},
        node::Identified,
        page::{Connection, wants_total},
        watch::Watch,
    },
};

/// Queues move faster than anybody reads.
const JOBS: Duration = Duration::from_millis(500);

/// An order to a worker.
pub(crate) struct Job(pub(crate) job::Job);

/// An order to a worker. Takes `JOB_READ`.
#[Object(directive = requires::apply(JobRead))]
impl Job {
    #[graphql(flatten)]
    async fn row(&self) -> &job::Job {
        &self.0
    }

    /// The worker that has it, or had it last: the `id` among `workers`.
    async fn worker(&self) -> Option<String> {
        self.0.worker.map(|worker| worker.to_string())
    }

    /// On whose behalf it runs.
    async fn actor(&self, ctx: &Context<'_>) -> Result<Option<Actor>> {
        actor(ctx, self.0.actor).await
    }
}

/// Queries on jobs.
#[derive(Default)]
pub(crate) struct JobQuery;

#[Object]
impl JobQuery {
    /// One job, or null. Takes `JOB_READ`.
    #[graphql(directive = requires::apply(JobRead))]
    async fn job(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Its id.")] id: JobId,
    ) -> Result<Option<Job>> {
        Ok(job::Job::find(&*ctx.read().await?, id).await?.map(Job))
    }

    /// The organization's jobs, those that wait or run and those that ended, the last pushed first. Ended ones are kept
    /// for a while. Takes `JOB_READ`.
    #[graphql(directive = requires::apply(JobRead))]
    async fn jobs(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which ones; all without it.")] filter: Option<JobFilter>,
        #[graphql(desc = "How many from the start, up to 100; 50 without it.")] first: Option<i32>,
        #[graphql(desc = "After this cursor.")] after: Option<String>,
        #[graphql(desc = "How many from the end, up to 100.")] last: Option<i32>,
        #[graphql(desc = "Before this cursor.")] before: Option<String>,
    ) -> Result<Connection<Job>> {
        let filter = filter.unwrap_or_default();
        let keys = &ctx.services().cursors;
        let scope = CursorScope::new(ctx.viewer()?.org, "jobs", &filter);
        let request = PageArgs { first, after, last, before }.check(keys, &scope)?;
        let tx = ctx.read().await?;
        let counting: OptionFuture<_> =
            wants_total(ctx).then(|| job::Job::count(&tx, &filter)).into();
        let (page, total) = tokio::join!(job::Job::list(&tx, &filter, &request), counting);
        let total = total.transpose()?;
        Ok(Connection::new(page?, keys, &scope, total, job::Job::position, Job))
    }

    /// Every queue in numbers. Takes `JOB_READ`; for the whole installation `FLEET_READ` as well.
    #[graphql(directive = requires::apply(JobRead))]
    async fn queues(
        &self,
        ctx: &Context<'_>,
        #[graphql(
            desc = "Count the jobs of all organizations, not only the viewer's. Takes `FLEET_READ`.",
            default_with = "Some(false)"
        )]
        fleet: Option<bool>,
    ) -> Result<Vec<QueueStats>> {
        if fleet != Some(true) {
            return Ok(QueueStats::list(&*ctx.read().await?).await?);
        }
        // Directives know no arguments, so what this one takes is checked here.
        if !ctx.viewer()?.may(FleetRead) {
            let message = "The queues of the whole installation take FLEET_READ: leave out fleet.";
            return Err(Error::new(ErrorCode::Forbidden, message));
        }
        ctx.scope().read_fleet(async |tx| QueueStats::list(tx).await).await
    }
}

/// Mutations of jobs.
#[derive(Default)]
pub(crate) struct JobMutation;

#[Object]
impl JobMutation {
    /// Lets a buried job wait again, with all its attempts. Takes `JOB_MANAGE`.
    #[graphql(directive = requires::apply(JobManage))]
    async fn retry_job(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which one.")] id: JobId,
    ) -> Result<Job> {
        let tx = ctx.write().await?;
        let job = job::Job::retry(&tx, id, ctx.now()).await?;
        tx.commit().await?;
        Ok(Job(job))
    }

    /// Lets buried jobs wait again, those pushed first first, and returns how many: at most 10,000, so call it again
    /// while it returns that many. Of several with one key one is retried, and none where another of the key waits.
    /// Takes `JOB_MANAGE`.
    #[graphql(directive = requires::apply(JobManage))]
    async fn retry_jobs(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which ones of the buried; all with an empty one.")] filter: JobFilter,
    ) -> Result<i64> {
        let tx = ctx.write().await?;
        let retried = job::Job::retry_all(&tx, &filter, ctx.now()).await?;
        tx.commit().await?;
        Ok(retried)
    }

    /// Gives a buried job up. Takes `JOB_MANAGE`.
    #[graphql(directive = requires::apply(JobManage))]
    async fn discard_job(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which one.")] id: JobId,
    ) -> Result<Job> {
        let tx = ctx.write().await?;
        let job = job::Job::discard(&tx, id, ctx.now()).await?;
        tx.commit().await?;
        Ok(Job(job))
    }

    /// Ends a job that waits; one that runs is told to end, and is still running in what this returns.
    /// Takes `JOB_MANAGE`.
    #[graphql(directive = requires::apply(JobManage))]
    async fn cancel_job(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which one.")] id: JobId,
    ) -> Result<Job> {
        let tx = ctx.write().await?;
        let job = job::Job::cancel(&tx, id, ctx.now()).await?;
        tx.commit().await?;
        Ok(Job(job))
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

impl Identified for Job {
    type Entity = entity::Job;

    const REQUIRES: Option<Permission> = Some(JobRead);

    fn row_id(&self) -> Id<entity::Job> {
        self.0.id
    }

    async fn find(ctx: &Context<'_>, id: Id<entity::Job>) -> Result<Option<Self>> {
        Ok(job::Job::find(&*ctx.read().await?, id).await?.map(Self))
    }
}
