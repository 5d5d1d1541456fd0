//! Quota of compliance runs and rule trials, which both evaluate many assets.

use async_graphql::Context;

use crate::request::{context::ContextExt, error::Result};

/// Counts one run or trial against the quotas of the caller and of the organization.
pub(crate) async fn consume_run_quota(ctx: &Context<'_>) -> Result<()> {
    let viewer = ctx.viewer()?;
    let own = viewer.own_id().unwrap_or_default();
    let buckets = [format!("scan:actor:{own}"), format!("scan:org:{}", viewer.org)];
    ctx.take_tokens(&ctx.services().run_quota, &buckets.each_ref().map(String::as_str)).await
}
