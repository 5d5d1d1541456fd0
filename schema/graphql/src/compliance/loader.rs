//! Loaders of what compliance is made of: rules, runs, postures, findings, waivers.

use std::{collections::HashMap, sync::Arc};

use async_graphql::dataloader::Loader;
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

use crate::request::loader::{Loaded, PageKey, grouped, keyed};
use crate::request::{context::Scope, error::Error};

/// Rules as they were in these versions.
pub(crate) struct VersionLoader(pub(crate) Arc<Scope>);

impl Loader<RuleVersionId> for VersionLoader {
    type Value = Rule;
    type Error = Error;

    async fn load(
        &self,
        versions: &[RuleVersionId],
    ) -> Result<HashMap<RuleVersionId, Rule>, Error> {
        Ok(Rule::of_versions(&*self.0.read().await?, versions).await?)
    }
}

/// Rules as they count now.
pub(crate) struct RuleLoader(pub(crate) Arc<Scope>);

impl Loader<RuleId> for RuleLoader {
    type Value = Rule;
    type Error = Error;

    async fn load(&self, _: &[RuleId]) -> Result<HashMap<RuleId, Rule>, Error> {
        let rules = Rule::list(&*self.0.read().await?).await?;
        Ok(rules.into_iter().map(|rule| (rule.id, rule)).collect())
    }
}

/// Tags by id.
pub(crate) struct TagByIdLoader(pub(crate) Arc<Scope>);

impl Loader<TagId> for TagByIdLoader {
    type Value = Tag;
    type Error = Error;

    async fn load(&self, ids: &[TagId]) -> Result<HashMap<TagId, Tag>, Error> {
        let tags = Tag::of_ids(&*self.0.read().await?, ids).await?;
        Ok(tags.into_iter().map(|tag| (tag.id, tag)).collect())
    }
}

/// Waivers by id.
pub(crate) struct WaiverLoader(pub(crate) Arc<Scope>);

impl Loader<WaiverId> for WaiverLoader {
    type Value = Waiver;
    type Error = Error;

    async fn load(&self, ids: &[WaiverId]) -> Result<HashMap<WaiverId, Waiver>, Error> {
        let waivers = Waiver::of_ids(&*self.0.read().await?, ids).await?;
        Ok(waivers.into_iter().map(|waiver| (waiver.id, waiver)).collect())
    }
}

/// Compliance runs by id.
pub(crate) struct RunLoader(pub(crate) Arc<Scope>);

impl Loader<RunId> for RunLoader {
    type Value = Run;
    type Error = Error;

    async fn load(&self, ids: &[RunId]) -> Result<HashMap<RunId, Run>, Error> {
        let runs = Run::of_ids(&*self.0.read().await?, ids).await?;
        Ok(runs.into_iter().map(|run| (run.id, run)).collect())
    }
}

/// What compliance runs found, in numbers.
pub(crate) struct FiguresLoader(pub(crate) Arc<Scope>);

impl Loader<RunId> for FiguresLoader {
    type Value = Figures;
    type Error = Error;

    async fn load(&self, runs: &[RunId]) -> Result<HashMap<RunId, Figures>, Error> {
        Ok(Figures::of_runs(&*self.0.read().await?, runs).await?)
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

/// Postures of assets; what was never judged has none.
pub(crate) struct PostureLoader(pub(crate) Arc<Scope>);

impl Loader<PostureKey> for PostureLoader {
    type Value = (Posture, Vec<RuleVerdict>);
    type Error = Error;

    async fn load(&self, keys: &[PostureKey]) -> Result<HashMap<PostureKey, Self::Value>, Error> {
        let tx = self.0.read().await?;
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

/// Pages of what assets break.
pub(crate) struct FindingPageLoader(pub(crate) Arc<Scope>);

impl Loader<PageKey> for FindingPageLoader {
    type Value = Loaded<Finding>;
    type Error = Error;

    async fn load(&self, keys: &[PageKey]) -> Result<HashMap<PageKey, Loaded<Finding>>, Error> {
        let tx = self.0.read().await?;
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
