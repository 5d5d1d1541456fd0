//! Workers: the query. What is shown of one is its row.

use async_graphql::{Context, Object};
use domain::{
    access::{directive::requires, permission::Permission::FleetRead},
    fleet::worker::Worker,
};

use crate::request::{context::ContextExt, error::Result};

/// Queries on workers.
#[derive(Default)]
pub(crate) struct WorkerQuery;

#[Object]
impl WorkerQuery {
    /// The installation's workers that were seen within the last minute, the longest-running first. Takes `FLEET_READ`.
    #[graphql(directive = requires::apply(FleetRead))]
    async fn workers(&self, ctx: &Context<'_>) -> Result<Vec<Worker>> {
        ctx.scope().read_fleet(async |tx| Worker::list(tx).await).await
    }
}
