//! GraphQL type, queries and mutations of rules, and trials of unsaved rules.

use std::sync::{Arc, OnceLock};

use std::collections::HashMap;

use async_graphql::{Context, Object};
use domain::{
    Id,
    access::{
        directive::requires,
        permission::Permission::{self, AssetRead, ComplianceRead, ComplianceRun, ComplianceWrite},
    },
    compliance::rule::{self, AppliesTo, Compiled, Control, RuleInput, Severity},
    entity::{self, RuleId, RuleVersionId},
};
use serde_json::{Value, json};

use crate::{
    compliance::{finding::shown_evidence, quota::consume_run_quota},
    inventory::asset::{Asset, asset_of},
    request::{
        context::{ContextExt, RequestScope},
        error::Result,
        loader::{Batch, Load},
        node::Identified,
        row::{Row, rows},
    },
};

/// A machine-checkable condition on an asset.
pub(crate) struct Rule {
    pub(crate) row: rule::Rule,
    /// The compiled rule, set on first use; `None` if this server version cannot compile the rule.
    compiled: OnceLock<Option<Arc<Compiled>>>,
}

impl From<rule::Rule> for Rule {
    fn from(row: rule::Rule) -> Self {
        Self { row, compiled: OnceLock::new() }
    }
}

impl Rule {
    fn compiled(&self) -> Option<&Compiled> {
        self.compiled.get_or_init(|| self.row.compiled().ok()).as_deref()
    }
}

/// A rule: a machine-checkable condition on an asset. Requires `COMPLIANCE_READ`.
#[Object(directive = requires::apply(ComplianceRead))]
impl Rule {
    /// The rule's id, beginning `rul_`; the same for all its versions.
    async fn id(&self) -> RuleId {
        self.row.id
    }

    /// Key of the rule, e.g. `disk-encryption`; unique in the organization.
    async fn key(&self) -> &str {
        &self.row.key
    }

    /// Number of the current version, from 1.
    async fn version(&self) -> i32 {
        self.row.version
    }

    /// Requirement that the asset must meet, in one line.
    async fn title(&self) -> &str {
        &self.row.definition.title
    }

    /// Severity of a failure of the rule. It determines the rule's weight in scores: `LOW` 1, `MEDIUM` 2, `HIGH` 5,
    /// `CRITICAL` 10.
    async fn severity(&self) -> Severity {
        self.row.definition.severity
    }

    /// Framework controls that the rule checks.
    async fn controls(&self) -> Vec<Control> {
        self.row.definition.controls.iter().map(Control::of).collect()
    }

    /// Assets to which the rule applies.
    async fn applies_to(&self) -> &AppliesTo {
        &self.row.definition.applies_to
    }

    /// CEL expression that is true if the asset passes the rule.
    async fn condition(&self) -> &str {
        &self.row.definition.condition
    }

    /// Effective parameters: an object that maps each name to its value. Values that the organization set override the
    /// defaults.
    async fn params(&self) -> &Value {
        &self.row.params
    }

    /// Evidence expressions: an object that maps each name to its CEL expression. Their values are shown next to a
    /// verdict.
    async fn evidence(&self) -> Value {
        json!(self.row.definition.evidence)
    }

    /// Instructions for fixing a failure.
    async fn remediation(&self) -> &str {
        &self.row.definition.remediation
    }

    /// True for a builtin rule. Only the parameters and `enabled` of a builtin rule can be changed.
    async fn builtin(&self) -> bool {
        self.row.builtin
    }

    /// True if assets are evaluated against the rule.
    async fn enabled(&self) -> bool {
        self.row.enabled
    }

    /// Maximum number of steps to evaluate the condition on one asset; at most 100,000 are allowed. Null if this
    /// version of SentryOps cannot compile the rule.
    async fn cost(&self) -> Option<i32> {
        self.compiled().and_then(|compiled| i32::try_from(compiled.cost).ok())
    }

    /// Names of the facts that the rule reads, such as `attr.disk_encrypted`. Empty if this version of SentryOps cannot
    /// compile the rule.
    async fn reads(&self) -> Vec<&'static str> {
        self.compiled().map(|compiled| compiled.reads().collect()).unwrap_or_default()
    }
}

/// Result of trying a rule that is not saved.
pub(crate) struct RuleTrial(rule::Trial);

/// Result of a rule trial: the verdicts that the rule would give on the assets in operation. Requires `ASSET_READ`,
/// because even the counts answer questions about facts of assets.
#[Object(directive = requires::apply(AssetRead))]
impl RuleTrial {
    #[graphql(flatten)]
    async fn row(&self) -> &rule::Trial {
        &self.0
    }

    /// Up to five example assets for each verdict.
    async fn examples(&self) -> Vec<RuleExample> {
        self.0.examples.iter().cloned().map(RuleExample).collect()
    }
}

/// Example asset of a rule trial.
pub(crate) struct RuleExample(rule::Example);

/// Example asset of a rule trial, with its verdict and evidence. A trial is a dry run of a rule, which stores nothing.
/// Requires `ASSET_READ`.
#[Object(directive = requires::apply(AssetRead))]
impl RuleExample {
    #[graphql(flatten)]
    async fn row(&self) -> &rule::Example {
        &self.0
    }

    /// The asset on which the rule was tried.
    async fn asset(&self, ctx: &Context<'_>) -> Result<Asset> {
        asset_of(ctx, self.0.asset).await
    }

    /// Values of the rule's evidence expressions: an object that maps each name to its value.
    async fn evidence(&self, ctx: &Context<'_>) -> Result<Value> {
        shown_evidence(ctx, &self.0.evidence)
    }
}

/// Root fields that read rules.
#[derive(Default)]
pub(crate) struct RuleQuery;

#[Object]
impl RuleQuery {
    /// The organization's rules: builtin rules first, then its own by key. Requires `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(ComplianceRead))]
    async fn rules(&self, ctx: &Context<'_>) -> Result<Vec<Row<Rule>>> {
        let rules = rule::Rule::list(&*ctx.read().await?).await?;
        Ok(rows(rules.into_iter().map(Rule::from)))
    }

    /// The rule with this key; null if there is none. Requires `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(ComplianceRead))]
    async fn rule(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The rule's key, e.g. `disk-encryption`.")] key: String,
    ) -> Result<Option<Rule>> {
        Ok(rule::Rule::find_by_key(&*ctx.read().await?, &key).await?.map(Rule::from))
    }
}

/// Root fields that save and try rules.
#[derive(Default)]
pub(crate) struct RuleMutation;

#[Object]
impl RuleMutation {
    /// Saves one of the organization's own rules under the key in `input`. Changed content creates a new version, and
    /// all assets are re-evaluated. The rule is first tried on up to 500 assets. It is rejected if its evaluation ends
    /// with an error on every one of them that has the needed facts. It is also rejected if it raises the steps of the
    /// enabled rules together above 1,000,000 per asset. Requires `COMPLIANCE_WRITE`.
    #[graphql(directive = requires::apply(ComplianceWrite))]
    async fn save_rule(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The rule to save.")] input: RuleInput,
    ) -> Result<Rule> {
        let tx = ctx.write().await?;
        let saved = rule::Rule::save(&tx, &input, ctx.now()).await;
        let rule = saved.map_err(|error| error.within("input"))?;
        tx.commit().await?;
        Ok(rule.into())
    }

    /// Sets parameters of a rule, and enables or disables the rule. Rejected if the change raises the steps of the
    /// enabled rules together above 1,000,000 per asset. Requires `COMPLIANCE_WRITE`.
    #[graphql(directive = requires::apply(ComplianceWrite))]
    async fn set_rule_params(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The rule's key, e.g. `disk-encryption`.")] key: String,
        #[graphql(
            desc = "Parameters to set: an object, merged by name; a null value restores the default."
        )]
        params: Option<Value>,
        #[graphql(desc = "True to evaluate assets against the rule; unchanged if omitted.")]
        enabled: Option<bool>,
    ) -> Result<Rule> {
        let tx = ctx.write().await?;
        let rule = rule::Rule::set_params(&tx, &key, params.as_ref(), enabled, ctx.now()).await?;
        tx.commit().await?;
        Ok(rule.into())
    }

    /// Tries a rule on up to 50,000 assets in operation without saving it. `SCAN_LIMIT` limits how often. Requires
    /// `COMPLIANCE_RUN` and `ASSET_READ`.
    #[graphql(directive = requires::apply(ComplianceRun))]
    async fn try_rule(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The rule to try.")] input: RuleInput,
    ) -> Result<RuleTrial> {
        consume_run_quota(ctx).await?;
        let (db, org) = (&ctx.services().db, ctx.viewer()?.org);
        let tried = rule::Trial::run(db, org, &input, ctx.now()).await;
        Ok(RuleTrial(tried.map_err(|error| error.within("input"))?))
    }
}

/// Loads a rule in its current version.
pub(crate) async fn rule_of(ctx: &Context<'_>, id: RuleId) -> Result<Rule> {
    let found = ctx.load::<RuleById>(id).await?;
    found.map(Rule::from).ok_or_else(|| domain::Error::not_found("rule", id).into())
}

/// Loads rules by id, in their current version.
pub(crate) struct RuleById;

impl Batch for RuleById {
    type Key = RuleId;
    type Row = rule::Rule;

    async fn load(scope: &RequestScope, _: &[RuleId]) -> Result<HashMap<RuleId, rule::Rule>> {
        let rules = rule::Rule::list(&*scope.read().await?).await?;
        Ok(rules.into_iter().map(|rule| (rule.id, rule)).collect())
    }
}

/// Loads rules by version id.
pub(crate) struct RuleByVersion;

impl Batch for RuleByVersion {
    type Key = RuleVersionId;
    type Row = rule::Rule;

    async fn load(
        scope: &RequestScope,
        versions: &[RuleVersionId],
    ) -> Result<HashMap<RuleVersionId, rule::Rule>> {
        Ok(rule::Rule::of_versions(&*scope.read().await?, versions).await?)
    }
}

impl Identified for Rule {
    type Entity = entity::Rule;

    const REQUIRES: Option<Permission> = Some(ComplianceRead);

    fn row_id(&self) -> Id<entity::Rule> {
        self.row.id
    }

    async fn find(ctx: &Context<'_>, id: Id<entity::Rule>) -> Result<Option<Self>> {
        Ok(rule::Rule::find(&*ctx.read().await?, id).await?.map(Self::from))
    }
}
