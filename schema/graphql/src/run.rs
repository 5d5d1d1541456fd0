//! Compliance runs: the view.

use async_graphql::{Context, Object};
use domain::{directive::authenticated, run};

use crate::{
    actor::{Actor, actor},
    error::Result,
};

/// One compliance run.
pub(crate) struct ComplianceRun(pub(crate) run::Run);

/// One compliance run: its state and progress are for everybody signed in, its outcome takes `COMPLIANCE_READ`.
#[Object(directive = authenticated::apply())]
impl ComplianceRun {
    #[graphql(flatten)]
    async fn row(&self) -> &run::Run {
        &self.0
    }

    /// On whose behalf it runs.
    async fn actor(&self, ctx: &Context<'_>) -> Result<Option<Actor>> {
        actor(ctx, self.0.actor).await
    }
}
