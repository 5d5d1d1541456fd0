//! Content of a report's printable page, read in one transaction.

use std::collections::HashMap;

use domain::{
    Tx,
    base::page::PageRequest,
    compliance::{
        evidence::AssetDetails,
        finding::Finding,
        report::{Report, WorstAsset},
        rule::Rule,
    },
    entity::{AssetId, RuleVersionId},
    inventory::asset::Asset,
};

use super::WORST;
use crate::request::error::Result;

/// Maximum number of findings on the page; the CSV file contains all findings.
const MAX_FINDINGS: usize = 200;

/// Content of one report page.
pub(super) struct Page {
    pub(super) report: Report,
    pub(super) worst: Vec<WorstAsset>,
    pub(super) findings: Vec<Finding>,
    /// Total number of findings, including those that are not on the page.
    pub(super) total: i64,
    /// Whether the page shows details of assets.
    pub(super) details: AssetDetails,
    /// Assets that the page names; empty for a caller without permission to read assets.
    pub(super) assets: HashMap<AssetId, Asset>,
    pub(super) rules: HashMap<RuleVersionId, Rule>,
}

impl Page {
    pub(super) async fn read(tx: &Tx, report: Report, details: AssetDetails) -> Result<Self> {
        let worst = report.worst_assets(tx, WORST).await?;
        let total = report.count_findings(tx).await?;
        let first = PageRequest { size: MAX_FINDINGS, backward: false, after: None, before: None };
        let findings = report.findings(tx, &first).await?.rows;
        let mut versions: Vec<_> = findings.iter().map(|finding| finding.version_id).collect();
        versions.sort_unstable();
        versions.dedup();
        let rules = Rule::of_versions(tx, &versions).await?;
        let asset_ids = worst.iter().map(|worst| worst.asset);
        let mut asset_ids: Vec<_> =
            asset_ids.chain(findings.iter().map(|finding| finding.asset_id)).collect();
        asset_ids.sort_unstable();
        asset_ids.dedup();
        let assets = match details {
            AssetDetails::Included => Asset::of_ids(tx, &asset_ids).await?,
            AssetDetails::Omitted => Vec::new(),
        };
        let assets = assets.into_iter().map(|asset| (asset.id, asset)).collect();
        Ok(Self { report, worst, findings, total, details, assets, rules })
    }
}
