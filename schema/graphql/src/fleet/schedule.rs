//! Schedules: GraphQL type, query and mutations.

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
    request::{
        context::ContextExt,
        error::Result,
        node::Identified,
        row::{Row, rows},
    },
};

/// A schedule: an action that runs at the times of a cron expression.
pub(crate) struct Schedule(pub(crate) schedule::Schedule);

/// A schedule: an action that runs at the times of a cron expression. Requires `JOB_READ`.
#[Object(directive = requires::apply(JobRead))]
impl Schedule {
    #[graphql(flatten)]
    async fn row(&self) -> &schedule::Schedule {
        &self.0
    }

    /// The actor who saved the schedule last; null if the user or API key no longer exists. Runs are executed on behalf
    /// of this actor, and only while the actor has the permission of the action.
    async fn actor(&self, ctx: &Context<'_>) -> Result<Option<Actor>> {
        actor(ctx, self.0.actor).await
    }
}

/// Query fields that list schedules.
#[derive(Default)]
pub(crate) struct ScheduleQuery;

#[Object]
impl ScheduleQuery {
    /// The organization's schedules, by name. Requires `JOB_READ`.
    #[graphql(directive = requires::apply(JobRead))]
    async fn schedules(&self, ctx: &Context<'_>) -> Result<Vec<Row<Schedule>>> {
        let schedules = schedule::Schedule::list(&*ctx.read().await?).await?;
        Ok(rows(schedules.into_iter().map(Schedule)))
    }
}

/// Mutation fields that change schedules.
#[derive(Default)]
pub(crate) struct ScheduleMutation;

#[Object]
impl ScheduleMutation {
    /// Creates the schedule with this name, or replaces its settings. Requires `SCHEDULE_WRITE`, and the permission
    /// that the action requires at each run, e.g. `COMPLIANCE_RUN`.
    #[graphql(directive = requires::apply(ScheduleWrite))]
    async fn save_schedule(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Settings of the schedule.")] input: ScheduleInput,
    ) -> Result<Schedule> {
        let tx = ctx.write().await?;
        let now = tx.now().await?;
        let schedule = schedule::Schedule::save(&tx, ctx.viewer()?, &input, now).await?;
        tx.commit().await?;
        Ok(Schedule(schedule))
    }

    /// Deletes a schedule. Runs that it has started continue. Requires `SCHEDULE_WRITE`.
    #[graphql(directive = requires::apply(ScheduleWrite))]
    async fn delete_schedule(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The schedule's id, beginning `sch_`.")] id: ScheduleId,
    ) -> Result<ScheduleId> {
        let tx = ctx.write().await?;
        schedule::Schedule::delete(&tx, id).await?;
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
