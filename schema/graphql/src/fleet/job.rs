//! Jobs and their queues: GraphQL types, queries, mutations and the subscription.

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
    document::policy::{FieldPolicy, Policy::StartsJobs},
    request::{
        context::ContextExt,
        error::{Error, ErrorCode, Result},
        no_null::check_no_null,
        node::Identified,
        page::{Connection, wants_total},
        subscription_state::SubscriptionState,
    },
};

/// Minimum interval between two polls of the subscription. Queues change faster than people can read.
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// A job: one unit of work for a worker.
pub(crate) struct Job(pub(crate) job::Job);

/// A job: one unit of work for a worker. Requires `JOB_READ`.
#[Object(directive = requires::apply(JobRead))]
impl Job {
    #[graphql(flatten)]
    async fn row(&self) -> &job::Job {
        &self.0
    }

    /// Id of the worker that runs the job or ran it last, as in `workers`; null before the first attempt.
    async fn worker(&self) -> Option<String> {
        self.0.worker.map(|worker| worker.to_string())
    }

    /// The actor on whose behalf the job runs; null if the user or API key no longer exists.
    async fn actor(&self, ctx: &Context<'_>) -> Result<Option<Actor>> {
        actor(ctx, self.0.actor).await
    }
}

/// Query fields for jobs and queues.
#[derive(Default)]
pub(crate) struct JobQuery;

#[Object]
impl JobQuery {
    /// The job with this id, live or ended; null if there is none. Requires `JOB_READ`.
    #[graphql(directive = requires::apply(JobRead))]
    async fn job(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The job's id, beginning `job_`.")] id: JobId,
    ) -> Result<Option<Job>> {
        Ok(job::Job::find(&*ctx.read().await?, id).await?.map(Job))
    }

    /// The organization's jobs, live and ended, newest first. Live jobs include buried (dead-lettered) ones. Ended jobs
    /// are kept for a limited time. Requires `JOB_READ`.
    #[graphql(directive = requires::apply(JobRead))]
    async fn jobs(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Filter for the jobs; default all jobs.")] filter: Option<JobFilter>,
        #[graphql(desc = "Page size, 1 to 100; default 50.")] first: Option<i32>,
        #[graphql(desc = "Cursor after which the page starts.")] after: Option<String>,
        #[graphql(desc = "Page size from the end, 1 to 100.")] last: Option<i32>,
        #[graphql(desc = "Cursor before which the page ends.")] before: Option<String>,
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

    /// Statistics of every queue. Requires `JOB_READ`, and also `FLEET_READ` if `fleet` is true.
    #[graphql(directive = requires::apply(JobRead))]
    async fn queues(
        &self,
        ctx: &Context<'_>,
        #[graphql(
            desc = "True to count the jobs of all organizations, which requires `FLEET_READ`; default false.",
            default_with = "Some(false)"
        )]
        fleet: Option<bool>,
    ) -> Result<Vec<QueueStats>> {
        if fleet != Some(true) {
            return Ok(QueueStats::list(&*ctx.read().await?).await?);
        }
        // Directives cannot depend on arguments, so the permission for `fleet` is checked here.
        if !ctx.viewer()?.may(FleetRead) {
            let message = "The queues of the whole installation require FLEET_READ: omit fleet.";
            return Err(Error::new(ErrorCode::Forbidden, message));
        }
        ctx.scope().read_fleet(async |tx| QueueStats::list(tx).await).await
    }
}

/// Policies of the fields that make buried jobs ready again.
pub(crate) const POLICIES: &[FieldPolicy] = &[
    FieldPolicy { on: "Mutation", field: "retryJob", policies: &[StartsJobs] },
    FieldPolicy { on: "Mutation", field: "retryJobs", policies: &[StartsJobs] },
];

/// Mutation fields that change jobs.
#[derive(Default)]
pub(crate) struct JobMutation;

#[Object]
impl JobMutation {
    /// Makes a buried (dead-lettered) job ready for a worker again, with all of its attempts. Requires `JOB_MANAGE`.
    #[graphql(directive = requires::apply(JobManage))]
    async fn retry_job(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The job's id, beginning `job_`.")] id: JobId,
    ) -> Result<Job> {
        let tx = ctx.write().await?;
        let job = job::Job::retry(&tx, id).await?;
        tx.commit().await?;
        Ok(Job(job))
    }

    /// Retries buried (dead-lettered) jobs, oldest first, and returns their number. One call retries at most 10,000
    /// jobs, so repeat the call while it returns that many. Of several jobs with the same deduplication key, one is
    /// retried; none is if a job with the key is already waiting or scheduled. Requires `JOB_MANAGE`.
    #[graphql(directive = requires::apply(JobManage))]
    async fn retry_jobs(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Filter for the buried jobs; an empty filter retries all.")]
        filter: JobFilter,
    ) -> Result<i64> {
        check_no_null(ctx, "filter")?;
        let tx = ctx.write().await?;
        let retried = job::Job::retry_all(&tx, &filter).await?;
        tx.commit().await?;
        Ok(retried)
    }

    /// Discards a buried (dead-lettered) job and moves it to the history. Requires `JOB_MANAGE`.
    #[graphql(directive = requires::apply(JobManage))]
    async fn discard_job(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The job's id, beginning `job_`.")] id: JobId,
    ) -> Result<Job> {
        let tx = ctx.write().await?;
        let job = job::Job::discard(&tx, id).await?;
        tx.commit().await?;
        Ok(Job(job))
    }

    /// Cancels a job. A job that waits ends immediately. A running job is returned with `isCancelling` true, and its
    /// worker stops it. Requires `JOB_MANAGE`.
    #[graphql(directive = requires::apply(JobManage))]
    async fn cancel_job(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The job's id, beginning `job_`.")] id: JobId,
    ) -> Result<Job> {
        let tx = ctx.write().await?;
        let job = job::Job::cancel(&tx, id).await?;
        tx.commit().await?;
        Ok(Job(job))
    }
}

/// Subscription fields that send jobs.
#[derive(Default)]
pub(crate) struct JobSubscription;

#[Subscription]
impl JobSubscription {
    /// Jobs that change after the subscription begins: one event per changed job. Changes are collected for up to half
    /// a second. If more than 100 jobs changed in this time, only the 100 that changed last are sent. Requires
    /// `JOB_READ`.
    #[graphql(directive = requires::apply(JobRead))]
    async fn jobs(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Queue of the jobs; default all queues.")] queue: Option<Queue>,
    ) -> Result<impl Stream<Item = Job> + use<>> {
        let subscription = SubscriptionState::of(ctx);
        subscription.subscribe_to_hints(ctx, &[entity::Job::PREFIX], None)?;
        subscription.set_min_interval(MIN_POLL_INTERVAL);
        subscription.disable_dedup();
        let (since, alive) = subscription.sent_rows().read_position();
        let changed = job::Job::changed(&*ctx.read().await?, queue, since, &alive).await?;
        let mut sent_rows = subscription.sent_rows();
        let jobs = sent_rows.take_new(changed.jobs, |job| job.id.uuid(), changed.at);
        for job in &jobs {
            sent_rows.record(job.id.uuid(), job.finished_at.is_none());
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
