//! GraphQL types of an asset's posture: all its current verdicts and its score. The field `posture` of an asset is in
//! `compliance/asset`.

use std::collections::HashMap;

use async_graphql::{Context, Object};
use chrono::{DateTime, Utc};
use domain::{
    access::{directive::requires, permission::Permission::ComplianceRead},
    compliance::{evidence::AssetDetails, posture, rule::Verdict},
    entity::AssetId,
};
use serde_json::Value;

use crate::{
    compliance::rule::Rule,
    request::{
        context::{ContextExt, RequestScope},
        error::Result,
        loader::{Batch, Load, grouped},
        row::{Row, rows},
    },
};

/// The current verdicts and the score of one asset.
pub(crate) struct Posture {
    row: posture::Posture,
    verdicts: Vec<posture::RuleVerdict>,
}

/// The current verdicts and the score of one asset. Requires `COMPLIANCE_READ`.
#[Object(directive = requires::apply(ComplianceRead))]
impl Posture {
    /// Percentage, 0 to 100: weight of the passed rules out of the weight of the passed and failed rules. A rule's
    /// weight follows from its severity: `LOW` 1, `MEDIUM` 2, `HIGH` 5, `CRITICAL` 10. Waived failures do not count.
    /// Null if no rule passed or failed.
    async fn score(&self) -> Option<f64> {
        self.row.percent()
    }

    /// Fraction, 0 to 1: weight of the assessed rules (passed, failed or waived) out of the weight of all rules that
    /// apply to the asset; 0 if none applies.
    async fn coverage(&self) -> f64 {
        self.row.coverage()
    }

    /// Verdicts of the enabled rules that apply to the asset.
    async fn verdicts(&self) -> Vec<Row<RuleVerdict>> {
        rows(self.verdicts.iter().cloned().map(RuleVerdict))
    }

    /// Time of the last evaluation that changed the posture. Evaluations with an unchanged result do not update the
    /// time.
    async fn evaluated_at(&self) -> DateTime<Utc> {
        self.row.evaluated_at
    }
}

/// A rule's current verdict for an asset.
pub(crate) struct RuleVerdict(posture::RuleVerdict);

/// Current verdict of one rule for an asset. Requires `COMPLIANCE_READ`.
#[Object(directive = requires::apply(ComplianceRead))]
impl RuleVerdict {
    /// The rule in its current version.
    async fn rule(&self) -> Rule {
        self.0.rule.clone().into()
    }

    /// Verdict of the rule for the asset; stays `FAIL` while a failure is waived.
    async fn verdict(&self) -> Verdict {
        self.0.verdict
    }

    /// True if the asset fails the rule and an active waiver covers the failure. The verdict is then still `FAIL`.
    async fn waived(&self) -> bool {
        self.0.waived
    }

    /// Reason for the verdict `NOT_ASSESSED` (the missing fact) or `ERROR` (the error message). If the asset changed
    /// after this verdict was computed and now has another verdict, the reason says that re-evaluation is pending; an
    /// `ERROR` keeps its message. Otherwise null.
    async fn reason(&self) -> Option<&str> {
        self.0.reason.as_deref()
    }

    /// Values of the rule's evidence expressions: an object that maps each name to its value. A value is null if a fact
    /// is missing. If the asset changed after this verdict was computed and now has another verdict, the whole object
    /// is null until the asset is re-evaluated. Null for a caller without `ASSET_READ`.
    async fn evidence(&self, ctx: &Context<'_>) -> Result<Option<&Value>> {
        let details = AssetDetails::of(ctx.viewer()?);
        Ok(self.0.evidence.as_ref().and_then(|evidence| evidence.shown(details)))
    }

    /// Time at which the verdict or `waived` is expected to change although no fact changes, e.g. because a certificate
    /// or the waiver expires; null if no such change is expected.
    async fn flips_at(&self) -> Option<DateTime<Utc>> {
        self.0.flips_at
    }
}

/// Loads an asset's posture; `None` if the asset was never evaluated or is not in operation.
pub(crate) async fn of_asset(ctx: &Context<'_>, asset: AssetId) -> Result<Option<Posture>> {
    let verdicts = ctx.look_ahead().field("verdicts").exists();
    let found = ctx.load::<PostureOfAsset>(PostureKey { asset, verdicts }).await?;
    Ok(found.map(|(row, verdicts)| Posture { row, verdicts }))
}

/// Key of a posture to load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PostureKey {
    /// The asset with the posture to load.
    pub(crate) asset: AssetId,
    /// True to load the verdicts as well. Their reasons and evidence are evaluated again from the current facts.
    pub(crate) verdicts: bool,
}

/// Loads the postures of assets. The result has no entry for an asset that was never evaluated.
pub(crate) struct PostureOfAsset;

impl Batch for PostureOfAsset {
    type Key = PostureKey;
    type Row = (posture::Posture, Vec<posture::RuleVerdict>);

    async fn load(
        scope: &RequestScope,
        keys: &[PostureKey],
    ) -> Result<HashMap<PostureKey, Self::Row>> {
        let tx = scope.read().await?;
        let mut all = HashMap::new();
        for (verdicts, assets) in grouped(keys, |key| (key.verdicts, key.asset)) {
            let postures = posture::Posture::of_assets(&tx, &assets).await?;
            let mut verdicts_by_asset = if verdicts {
                posture::RuleVerdict::of_postures(&tx, &postures).await?
            } else {
                HashMap::new()
            };
            all.extend(postures.into_iter().map(|posture| {
                let asset = posture.asset;
                let key = PostureKey { asset, verdicts };
                (key, (posture, verdicts_by_asset.remove(&asset).unwrap_or_default()))
            }));
        }
        Ok(all)
    }
}
