//! Schedules: the view, the query, the mutations.

use async_graphql::{Context, Object};
use domain::{
    Id,
    access::{
        directive::requires,
        permission::Permission::{self, JobRead, ScheduleWrite},
    },
    entity::{self, ScheduleId},
    fleet::schedule::{self, ScheduleInput},
};

use crate::{
    access::actor::{Actor, actor},
    request::{context::ContextExt, error::Result, node::Identified},
};

/// What is to be done at which times.
pub(crate) struct Schedule(pub(crate) schedule::Schedule);

/// What is to be done at which times. Takes `JOB_READ`.
#[Object(directive = requires::apply(JobRead))]
impl Schedule {
    #[graphql(flatten)]
    async fn row(&self) -> &schedule::Schedule {
        &self.0
    }

    /// Who saved it last: what it starts is done for them, and only while they may.
    async fn actor(&self, ctx: &Context<'_>) -> Result<Option<Actor>> {
        actor(ctx, self.0.actor).await
    }
}

/// Queries on schedules.
#[derive(Default)]
pub(crate) struct ScheduleQuery;

#[Object]
impl ScheduleQuery {
    /// The organization's schedules, by name. Takes `JOB_READ`.
    #[graphql(directive = requires::apply(JobRead))]
    async fn schedules(&self, ctx: &Context<'_>) -> Result<Vec<Schedule>> {
        let schedules = schedule::Schedule::list(&*ctx.read().await?).await?;
        Ok(schedules.into_iter().map(Schedule).collect())
    }
}

/// Mutations of schedules.
#[derive(Default)]
pub(crate) struct ScheduleMutation;

#[Object]
impl ScheduleMutation {
    /// Makes the schedule of that name, or changes it. Takes `SCHEDULE_WRITE`, and the permission of what it does.
    #[graphql(directive = requires::apply(ScheduleWrite))]
    async fn save_schedule(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The schedule.")] input: ScheduleInput,
    ) -> Result<Schedule> {
        let tx = ctx.write().await?;
        let now = tx.now().await?;
        let schedule = schedule::Schedule::save(&tx, ctx.viewer()?, &input, now).await?;
        tx.commit().await?;
        Ok(Schedule(schedule))
    }

    /// Deletes a schedule; what it has started goes on. Takes `SCHEDULE_WRITE`.
    #[graphql(directive = requires::apply(ScheduleWrite))]
    async fn delete_schedule(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which one.")] id: ScheduleId,
    ) -> Result<ScheduleId> {
        let tx = ctx.write().await?;
        schedule::Schedule::delete(&tx, id, ctx.now()).await?;
        tx.commit().await?;
        Ok(id)
    }
}

impl Identified for Schedule {
    type Entity = entity::Schedule;

    const REQUIRES: Option<Permission> = Some(JobRead);

    fn row_id(&self) -> Id<entity::Schedule> {
        self.0.id
    }

    async fn find(ctx: &Context<'_>, id: Id<entity::Schedule>) -> Result<Option<Self>> {
        Ok(schedule::Schedule::find(&*ctx.read().await?, id).await?.map(Self))
    }
}
