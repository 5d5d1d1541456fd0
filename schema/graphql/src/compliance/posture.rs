//! An asset's posture: the views. (The field of an asset is in `compliance/asset`.)

use std::collections::HashMap;

use async_graphql::{Context, Object};
use chrono::{DateTime, Utc};
use domain::{
    access::{directive::requires, permission::Permission::ComplianceRead},
    compliance::{posture, rule::Verdict},
    entity::AssetId,
};
use serde_json::Value;

use crate::{
    compliance::rule::Rule,
    request::{
        context::RequestScope,
        error::Result,
        loader::{Batch, Load, grouped},
    },
};

/// What every rule says of an asset now.
pub(crate) struct Posture {
    row: posture::Posture,
    verdicts: Vec<posture::RuleVerdict>,
}

/// What every rule says of an asset now. Takes `COMPLIANCE_READ`.
#[Object(directive = requires::apply(ComplianceRead))]
impl Posture {
    /// The weight of what holds in that of what was judged, 0 to 100; null where nothing was.
    async fn score(&self) -> Option<f64> {
        self.row.percent()
    }

    /// The weight of what was judged in that of all that applies, 0 to 1.
    async fn coverage(&self) -> f64 {
        self.row.coverage()
    }

    /// What each rule says that is about the asset.
    async fn verdicts(&self) -> Vec<RuleVerdict> {
        self.verdicts.iter().cloned().map(RuleVerdict).collect()
    }

    /// When it became this; it is what it is since.
    async fn evaluated_at(&self) -> DateTime<Utc> {
        self.row.evaluated_at
    }
}

/// What a rule says of an asset now.
pub(crate) struct RuleVerdict(posture::RuleVerdict);

/// What a rule says of an asset now. Takes `COMPLIANCE_READ`.
#[Object(directive = requires::apply(ComplianceRead))]
impl RuleVerdict {
    /// The rule, as it counts now.
    async fn rule(&self) -> Rule {
        self.0.rule.clone().into()
    }

    /// What it says.
    async fn verdict(&self) -> Verdict {
        self.0.verdict
    }

    /// Whether a waiver allows that it fails.
    async fn waived(&self) -> bool {
        self.0.waived
    }

    /// Why there is no verdict: which fact is missing, or what went wrong; or that a change is being followed just now.
    async fn reason(&self) -> Option<&str> {
        self.0.reason.as_deref()
    }

    /// What was seen, by name, beside what it should be.
    async fn evidence(&self) -> Option<&Value> {
        self.0.evidence.as_ref()
    }

    /// When time alone will change it; null where it will not.
    async fn flips_at(&self) -> Option<DateTime<Utc>> {
        self.0.flips_at
    }
}

/// An asset's posture; none where it was never judged, and where it is not in operation.
pub(crate) async fn of_asset(ctx: &Context<'_>, asset: AssetId) -> Result<Option<Posture>> {
    let verdicts = ctx.look_ahead().field("verdicts").exists();
    let found = ctx.load::<PostureOfAsset>(PostureKey { asset, verdicts }).await?;
    Ok(found.map(|(row, verdicts)| Posture { row, verdicts }))
}

/// A question for a posture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PostureKey {
    /// Whose.
    pub(crate) asset: AssetId,
    /// Whether with what each rule says, which is judged anew.
    pub(crate) verdicts: bool,
}

/// The posture of an asset; one that was never judged has no value.
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
            let mut shown = if verdicts {
                posture::RuleVerdict::of_postures(&tx, &postures).await?
            } else {
                HashMap::new()
            };
            all.extend(postures.into_iter().map(|posture| {
                let asset = posture.asset;
                let key = PostureKey { asset, verdicts };
                (key, (posture, shown.remove(&asset).unwrap_or_default()))
            }));
        }
        Ok(all)
    }
}
