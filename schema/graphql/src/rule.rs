//! Rules: the view.

use async_graphql::{Context, Object};
use domain::{
    Id,
    directive::requires,
    permission::Permission::ComplianceRead,
    rule::{self, Control, Severity},
};
use serde_json::Value;

use crate::{context::ContextExt, error::Result};

/// A machine-checkable condition on an asset.
pub(crate) struct Rule(pub(crate) rule::Rule);

/// A machine-checkable condition on an asset. Takes `COMPLIANCE_READ`.
#[Object(directive = requires::apply(ComplianceRead))]
impl Rule {
    /// Its id; the same for all its versions.
    async fn id(&self) -> Id<rule::Rule> {
        self.0.id
    }

    /// What it is called by, e.g. `disk-encryption`; unique in the organization.
    async fn key(&self) -> &str {
        &self.0.key
    }

    /// Which version it is, from 1.
    async fn version(&self) -> i32 {
        self.0.version
    }

    /// A line that says what must be so.
    async fn title(&self) -> &str {
        &self.0.definition.title
    }

    /// How bad it is when it is not.
    async fn severity(&self) -> Severity {
        self.0.definition.severity
    }

    /// The requirements that it checks.
    async fn controls(&self) -> Vec<Control> {
        self.0.definition.controls.iter().map(Control::of).collect()
    }

    /// CEL: true where the asset passes.
    async fn condition(&self) -> &str {
        &self.0.definition.condition
    }

    /// Its thresholds by name.
    async fn params(&self) -> &Value {
        &self.0.params
    }

    /// What to do about it.
    async fn remediation(&self) -> &str {
        &self.0.definition.remediation
    }

    /// Whether it came with SentryOps.
    async fn builtin(&self) -> bool {
        self.0.builtin
    }

    /// Whether assets are judged by it.
    async fn enabled(&self) -> bool {
        self.0.enabled
    }
}

/// The rule that a row names, as it counts now.
pub(crate) async fn rule_of(ctx: &Context<'_>, id: Id<rule::Rule>) -> Result<Rule> {
    let found = ctx.loaders().rules.load_one(id).await?;
    found.map(Rule).ok_or_else(|| domain::Error::not_found("rule", id).into())
}
