//! What a report's page shows, read in one transaction.

use std::collections::HashMap;

use domain::{
    Tx,
    base::page::PageRequest,
    compliance::{
        finding::Finding,
        report::{Assets, Report, WorstAsset},
        rule::Rule,
    },
    entity::{AssetId, RuleVersionId},
    inventory::asset::Asset,
};

use super::WORST;
use crate::request::error::Result;

/// Findings on the page; the file has all.
const MOST_FINDINGS: usize = 200;

/// What a page shows.
pub(super) struct Page {
    pub(super) report: Report,
    pub(super) worst: Vec<WorstAsset>,
    pub(super) findings: Vec<Finding>,
    /// How many there are, on the page or not.
    pub(super) total: i64,
    /// Those named above; none for who may not see assets.
    pub(super) assets: HashMap<AssetId, Asset>,
    pub(super) rules: HashMap<RuleVersionId, Rule>,
}

impl Page {
    pub(super) async fn read(tx: &Tx, report: Report, told: Assets) -> Result<Self> {
        let worst = report.worst_assets(tx, WORST).await?;
        let total = report.count_findings(tx).await?;
        let first = PageRequest { size: MOST_FINDINGS, backward: false, after: None, before: None };
        let findings = report.findings(tx, &first).await?.rows;
        let mut versions: Vec<_> = findings.iter().map(|finding| finding.version_id).collect();
        versions.sort_unstable();
        versions.dedup();
        let rules = Rule::of_versions(tx, &versions).await?;
        let named = worst.iter().map(|worst| worst.asset);
        let mut named: Vec<_> =
            named.chain(findings.iter().map(|finding| finding.asset_id)).collect();
        named.sort_unstable();
        named.dedup();
        let assets = match told {
            Assets::Told => Asset::of_ids(tx, &named).await?,
            Assets::Withheld => Vec::new(),
        };
        let assets = assets.into_iter().map(|asset| (asset.id, asset)).collect();
        Ok(Self { report, worst, findings, total, assets, rules })
    }
}
