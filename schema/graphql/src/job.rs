//! Jobs: the view.

use async_graphql::{Context, Object};
use domain::{directive::requires, job, permission::Permission::JobRead};

use crate::{
    actor::{Actor, actor},
    error::Result,
};

/// An order to a worker.
pub(crate) struct Job(pub(crate) job::Job);

/// An order to a worker. Takes `JOB_READ`.
#[Object(directive = requires::apply(JobRead))]
impl Job {
    #[graphql(flatten)]
    async fn row(&self) -> &job::Job {
        &self.0
    }

    /// On whose behalf it runs.
    async fn actor(&self, ctx: &Context<'_>) -> Result<Option<Actor>> {
        actor(ctx, self.0.actor).await
    }
}
