//! Rules: the view, the queries, the mutations; and what a draft would say.

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
    compliance::quota::take_run,
    inventory::asset::{Asset, asset_of},
    request::{
        context::{ContextExt, RequestScope},
        error::Result,
        loader::{Batch, Load},
        node::Identified,
    },
};

/// A machine-checkable condition on an asset.
pub(crate) struct Rule {
    pub(crate) row: rule::Rule,
    /// Compiled when the first field asks for what that tells; none where this version cannot read it.
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

/// A machine-checkable condition on an asset. Takes `COMPLIANCE_READ`.
#[Object(directive = requires::apply(ComplianceRead))]
impl Rule {
    /// Its id; the same for all its versions.
    async fn id(&self) -> RuleId {
        self.row.id
    }

    /// What it is called by, e.g. `disk-encryption`; unique in the organization.
    async fn key(&self) -> &str {
        &self.row.key
    }

    /// Which version counts, from 1.
    async fn version(&self) -> i32 {
        self.row.version
    }

    /// A line that says what must be so.
    async fn title(&self) -> &str {
        &self.row.definition.title
    }

    /// How bad it is when it is not.
    async fn severity(&self) -> Severity {
        self.row.definition.severity
    }

    /// The requirements that it checks.
    async fn controls(&self) -> Vec<Control> {
        self.row.definition.controls.iter().map(Control::of).collect()
    }

    /// Which assets it is about.
    async fn applies_to(&self) -> &AppliesTo {
        &self.row.definition.applies_to
    }

    /// What must be so, in CEL: true where an asset passes.
    async fn condition(&self) -> &str {
        &self.row.definition.condition
    }

    /// Its thresholds by name, with what the organization set instead of their defaults.
    async fn params(&self) -> &Value {
        &self.row.params
    }

    /// What is shown beside a verdict: CEL by name.
    async fn evidence(&self) -> Value {
        json!(self.row.definition.evidence)
    }

    /// What to do where it is broken.
    async fn remediation(&self) -> &str {
        &self.row.definition.remediation
    }

    /// Whether it came with SentryOps; its thresholds can be set, and it can be switched off.
    async fn builtin(&self) -> bool {
        self.row.builtin
    }

    /// Whether assets are judged by it.
    async fn enabled(&self) -> bool {
        self.row.enabled
    }

    /// Steps that judging one asset takes at worst; 100,000 are allowed. Null where this version of SentryOps cannot read the
    /// rule.
    async fn cost(&self) -> Option<i32> {
        self.compiled().and_then(|compiled| i32::try_from(compiled.cost).ok())
    }

    /// What it reads, such as `attr.disk_encrypted`.
    async fn reads(&self) -> Vec<&'static str> {
        self.compiled().map(|compiled| compiled.reads().collect()).unwrap_or_default()
    }
}

/// What a rule would say of the assets in operation.
pub(crate) struct RuleTrial(rule::Trial);

/// What a rule would say of the assets in operation. Takes `COMPLIANCE_RUN`.
#[Object(directive = requires::apply(ComplianceRun))]
impl RuleTrial {
    #[graphql(flatten)]
    async fn row(&self) -> &rule::Trial {
        &self.0
    }

    /// Up to five of each verdict.
    async fn examples(&self) -> Vec<RuleExample> {
        self.0.examples.iter().cloned().map(RuleExample).collect()
    }
}

/// One asset in a trial.
pub(crate) struct RuleExample(rule::Example);

/// One asset in a trial. Takes `COMPLIANCE_RUN`.
#[Object(directive = requires::apply(ComplianceRun))]
impl RuleExample {
    #[graphql(flatten)]
    async fn row(&self) -> &rule::Example {
        &self.0
    }

    /// Which one.
    async fn asset(&self, ctx: &Context<'_>) -> Result<Asset> {
        asset_of(ctx, self.0.asset).await
    }
}

/// Queries on rules.
#[derive(Default)]
pub(crate) struct RuleQuery;

#[Object]
impl RuleQuery {
    /// The organization's rules: those that ship, then its own by key. Takes `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(ComplianceRead))]
    async fn rules(&self, ctx: &Context<'_>) -> Result<Vec<Rule>> {
        let rules = rule::Rule::list(&*ctx.read().await?).await?;
        Ok(rules.into_iter().map(Rule::from).collect())
    }

    /// The rule that is called by this key, or null. Takes `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(ComplianceRead))]
    async fn rule(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Its key, e.g. disk-encryption.")] key: String,
    ) -> Result<Option<Rule>> {
        Ok(rule::Rule::find_by_key(&*ctx.read().await?, &key).await?.map(Rule::from))
    }
}

/// Mutations of rules.
#[derive(Default)]
pub(crate) struct RuleMutation;

#[Object]
impl RuleMutation {
    /// Saves a rule of the organization's own, by its key: a new version where it says something else than before. Assets are
    /// judged by it at once; one that is an error wherever it was tried is refused. Takes `COMPLIANCE_WRITE`.
    #[graphql(directive = requires::apply(ComplianceWrite))]
    async fn save_rule(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The rule.")] input: RuleInput,
    ) -> Result<Rule> {
        let tx = ctx.write().await?;
        let saved = rule::Rule::save(&tx, &input, ctx.now()).await;
        let rule = saved.map_err(|error| error.within("input"))?;
        tx.commit().await?;
        Ok(rule.into())
    }

    /// Sets thresholds of a rule, and whether assets are judged by it at all. Takes `COMPLIANCE_WRITE`.
    #[graphql(directive = requires::apply(ComplianceWrite))]
    async fn set_rule_params(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Its key.")] key: String,
        #[graphql(
            desc = "Thresholds by name: an object, merged by name; null as a value goes back to the default."
        )]
        params: Option<Value>,
        #[graphql(desc = "Whether assets are judged by it; as before without it.")] enabled: Option<
            bool,
        >,
    ) -> Result<Rule> {
        let tx = ctx.write().await?;
        let rule = rule::Rule::set_params(&tx, &key, params.as_ref(), enabled, ctx.now()).await?;
        tx.commit().await?;
        Ok(rule.into())
    }

    /// What a rule would say of up to 50,000 assets in operation; saves nothing. Takes `COMPLIANCE_RUN`.
    #[graphql(directive = requires::apply(ComplianceRun))]
    async fn try_rule(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The rule.")] input: RuleInput,
    ) -> Result<RuleTrial> {
        take_run(ctx).await?;
        let tx = ctx.read().await?;
        let tried = rule::Trial::run(&tx, &input, ctx.now()).await;
        let mut trial = tried.map_err(|error| error.within("input"))?;
        if !ctx.viewer()?.may(AssetRead) {
            // Whoever may only run rules must not read facts through one.
            for example in &mut trial.examples {
                example.evidence = json!({});
            }
        }
        Ok(RuleTrial(trial))
    }
}

/// The rule that a row names, as it counts now.
pub(crate) async fn rule_of(ctx: &Context<'_>, id: RuleId) -> Result<Rule> {
    let found = ctx.load::<RuleById>(id).await?;
    found.map(Rule::from).ok_or_else(|| domain::Error::not_found("rule", id).into())
}

/// A rule by id, as it counts now.
pub(crate) struct RuleById;

impl Batch for RuleById {
    type Key = RuleId;
    type Row = rule::Rule;

    async fn load(scope: &RequestScope, _: &[RuleId]) -> Result<HashMap<RuleId, rule::Rule>> {
        let rules = rule::Rule::list(&*scope.read().await?).await?;
        Ok(rules.into_iter().map(|rule| (rule.id, rule)).collect())
    }
}

/// A rule as it was in a version.
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
