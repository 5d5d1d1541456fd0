//! The quota of judging many assets at once: runs, and trials of rules.

use async_graphql::Context;

use crate::request::{context::ContextExt, error::Result};

/// Counts one judging of many assets against the caller's quota and the organization's.
pub(crate) async fn take_run(ctx: &Context<'_>) -> Result<()> {
    let viewer = ctx.viewer()?;
    let own = viewer.own_id().unwrap_or_default();
    let buckets = [format!("scan:actor:{own}"), format!("scan:org:{}", viewer.org)];
    ctx.take(&ctx.services().scan_quota, &buckets.each_ref().map(String::as_str)).await
}
