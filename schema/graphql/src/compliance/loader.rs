//! Loaders of what compliance is made of: rules, runs, postures, findings, waivers.

use std::collections::HashMap;

use domain::{
    compliance::{
        finding::Finding,
        posture::{Posture, RuleVerdict},
        rule::Rule,
        run::Run,
        score::Figures,
        waiver::Waiver,
    },
    entity::{AssetId, RuleId, RuleVersionId, RunId, TagId, WaiverId},
    inventory::tag::Tag,
};
use futures_util::future::OptionFuture;

use crate::request::{
    context::Scope,
    error::Result,
    loader::{Batch, Loaded, PageKey, grouped, keyed},
};

/// A rule as it was in a version.
pub(crate) struct RuleByVersion;

impl Batch for RuleByVersion {
    type Key = RuleVersionId;
    type Row = Rule;

    async fn load(
        scope: &Scope,
        versions: &[RuleVersionId],
    ) -> Result<HashMap<RuleVersionId, Rule>> {
        Ok(Rule::of_versions(&*scope.read().await?, versions).await?)
    }
}

/// A rule by id, as it counts now.
pub(crate) struct RuleById;

impl Batch for RuleById {
    type Key = RuleId;
    type Row = Rule;

    async fn load(scope: &Scope, _: &[RuleId]) -> Result<HashMap<RuleId, Rule>> {
        let rules = Rule::list(&*scope.read().await?).await?;
        Ok(rules.into_iter().map(|rule| (rule.id, rule)).collect())
    }
}

/// A tag by id.
pub(crate) struct TagById;

impl Batch for TagById {
    type Key = TagId;
    type Row = Tag;

    async fn load(scope: &Scope, ids: &[TagId]) -> Result<HashMap<TagId, Tag>> {
        let tags = Tag::of_ids(&*scope.read().await?, ids).await?;
        Ok(tags.into_iter().map(|tag| (tag.id, tag)).collect())
    }
}

/// A waiver by id.
pub(crate) struct WaiverById;

impl Batch for WaiverById {
    type Key = WaiverId;
    type Row = Waiver;

    async fn load(scope: &Scope, ids: &[WaiverId]) -> Result<HashMap<WaiverId, Waiver>> {
        let waivers = Waiver::of_ids(&*scope.read().await?, ids).await?;
        Ok(waivers.into_iter().map(|waiver| (waiver.id, waiver)).collect())
    }
}

/// A compliance run by id.
pub(crate) struct RunById;

impl Batch for RunById {
    type Key = RunId;
    type Row = Run;

    async fn load(scope: &Scope, ids: &[RunId]) -> Result<HashMap<RunId, Run>> {
        let runs = Run::of_ids(&*scope.read().await?, ids).await?;
        Ok(runs.into_iter().map(|run| (run.id, run)).collect())
    }
}

/// The numbers that a compliance run found.
pub(crate) struct FiguresOfRun;

impl Batch for FiguresOfRun {
    type Key = RunId;
    type Row = Figures;

    async fn load(scope: &Scope, runs: &[RunId]) -> Result<HashMap<RunId, Figures>> {
        Ok(Figures::of_runs(&*scope.read().await?, runs).await?)
    }
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
    type Row = (Posture, Vec<RuleVerdict>);

    async fn load(scope: &Scope, keys: &[PostureKey]) -> Result<HashMap<PostureKey, Self::Row>> {
        let tx = scope.read().await?;
        let mut all = HashMap::new();
        for (verdicts, assets) in grouped(keys, |key| (key.verdicts, key.asset)) {
            let postures = Posture::of_assets(&tx, &assets).await?;
            let mut shown = if verdicts {
                RuleVerdict::of_postures(&tx, &postures).await?
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

/// A page of an asset's findings.
pub(crate) struct FindingPages;

impl Batch for FindingPages {
    type Key = PageKey<AssetId>;
    type Row = Loaded<Finding>;

    async fn load(
        scope: &Scope,
        keys: &[PageKey<AssetId>],
    ) -> Result<HashMap<PageKey<AssetId>, Loaded<Finding>>> {
        let tx = scope.read().await?;
        let mut all = HashMap::new();
        for ((page, total), assets) in grouped(keys, PageKey::split) {
            let pages = Finding::of_assets(&tx, &assets, &page).await?;
            let counting: OptionFuture<_> =
                total.then(|| Finding::count_of_assets(&tx, &assets)).into();
            let totals = counting.await.transpose()?;
            all.extend(keyed(pages, totals.as_ref(), &page));
        }
        Ok(all)
    }
}
