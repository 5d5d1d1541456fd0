//! Workers: the query. The domain's `Worker` is the GraphQL type.

use async_graphql::{Context, Object};
use domain::{
    access::{directive::requires, permission::Permission::FleetRead},
    fleet::worker::Worker,
};

use crate::request::{
    context::ContextExt,
    error::Result,
    row::{Row, rows},
};

/// Query fields that list workers.
#[derive(Default)]
pub(crate) struct WorkerQuery;

#[Object]
impl WorkerQuery {
    /// The installation's workers with a heartbeat within the last minute, the earliest start first. Requires
    /// `FLEET_READ`.
    #[graphql(directive = requires::apply(FleetRead))]
    async fn workers(&self, ctx: &Context<'_>) -> Result<Vec<Row<Worker>>> {
        ctx.scope().read_fleet(async |tx| Worker::list(tx).await).await.map(rows)
    }
}
