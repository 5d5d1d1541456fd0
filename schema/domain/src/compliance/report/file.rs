//! The findings that were live at the end of a run as a CSV file: one row per finding, newest first, written page by
//! page. This order does not change while a client downloads the file, so no row is missing or repeated.

use std::collections::HashMap;

use chrono::SecondsFormat;

use super::Report;
use crate::{
    access::user::User,
    base::{
        db::Tx,
        entity::{AssetId, RuleVersionId, UserId},
        error::Result,
        page::{PageRequest, Position},
    },
    compliance::{evidence::AssetDetails, finding::Finding, rule::Rule},
    inventory::{asset::Asset, export::put_row},
};

/// Number of findings per page.
const PAGE_FINDINGS: usize = 2_000;

const COLUMNS: [&str; 14] = [
    "asset_code",
    "asset_name",
    "asset_type",
    "asset_environment",
    "owner",
    "rule",
    "title",
    "severity",
    "state",
    "control",
    "opened_at",
    "evidence",
    "remediation",
    "finding",
];

/// A CSV file of a report's findings, while it is being written.
#[derive(Debug)]
pub struct FindingFile {
    report: Report,
    assets: AssetDetails,
    after: Option<Position>,
    is_complete: bool,
    /// Cache of the rule versions to which the rows so far refer.
    rules: HashMap<RuleVersionId, Rule>,
}

/// Assets and owners to which the findings of a page refer.
struct ReferencedRows {
    assets: HashMap<AssetId, Asset>,
    owners: HashMap<UserId, User>,
}

impl FindingFile {
    /// Starts a CSV file of the report's findings.
    pub fn begin(report: Report, assets: AssetDetails) -> Self {
        Self { report, assets, after: None, is_complete: false, rules: HashMap::new() }
    }

    /// Returns the header line of the CSV file.
    pub fn header(&self) -> Vec<u8> {
        let mut line = Vec::new();
        put_row(COLUMNS.into_iter(), &mut line);
        line
    }

    /// Returns the next page of rows; `None` after the last page. Each page may be read in its own transaction. The
    /// list of findings does not change between pages; severity, state and evidence are those at the time when the page
    /// is read.
    pub async fn page(&mut self, tx: &Tx) -> Result<Option<Vec<u8>>> {
        if self.is_complete {
            return Ok(None);
        }
        let request = PageRequest {
            size: PAGE_FINDINGS,
            backward: false,
            after: self.after.take(),
            before: None,
        };
        let page = self.report.findings_by_id(tx, &request).await?;
        self.is_complete = !page.has_next;
        self.after = page.rows.last().map(Finding::position);
        let referenced = self.load_referenced(tx, &page.rows).await?;
        let mut content = Vec::new();
        for finding in &page.rows {
            let cells = self.cells(finding, &referenced);
            put_row(cells.iter().map(String::as_str), &mut content);
        }
        Ok(Some(content))
    }

    async fn load_referenced(&mut self, tx: &Tx, findings: &[Finding]) -> Result<ReferencedRows> {
        let mut versions: Vec<_> = findings.iter().map(|finding| finding.version_id).collect();
        versions.sort_unstable();
        versions.dedup();
        versions.retain(|version| !self.rules.contains_key(version));
        if !versions.is_empty() {
            self.rules.extend(Rule::of_versions(tx, &versions).await?);
        }
        let (mut assets, mut owners) = (Vec::new(), Vec::new());
        if self.assets == AssetDetails::Included {
            let mut ids: Vec<_> = findings.iter().map(|finding| finding.asset_id).collect();
            ids.sort_unstable();
            ids.dedup();
            assets = Asset::of_ids(tx, &ids).await?;
            let mut ids: Vec<_> = assets.iter().filter_map(|asset| asset.owner_id).collect();
            ids.sort_unstable();
            ids.dedup();
            owners = User::of_ids(tx, &ids).await?;
        }
        Ok(ReferencedRows {
            assets: assets.into_iter().map(|asset| (asset.id, asset)).collect(),
            owners: owners.into_iter().map(|owner| (owner.id, owner)).collect(),
        })
    }

    fn cells(&self, finding: &Finding, referenced: &ReferencedRows) -> [String; COLUMNS.len()] {
        let asset = referenced.assets.get(&finding.asset_id);
        let of_asset = |text: fn(&Asset) -> String| asset.map(text).unwrap_or_default();
        let owner = asset.and_then(|asset| referenced.owners.get(&asset.owner_id?));
        let rule = self.rules.get(&finding.version_id);
        let of_rule = |text: fn(&Rule) -> String| rule.map(text).unwrap_or_default();
        [
            of_asset(|asset| asset.code.clone()),
            of_asset(|asset| asset.name.clone()),
            of_asset(|asset| asset.asset_type.as_str().to_owned()),
            of_asset(|asset| asset.environment.as_str().to_owned()),
            owner.map(|owner| owner.name.clone()).unwrap_or_default(),
            of_rule(|rule| rule.key.clone()),
            of_rule(|rule| rule.definition.title.clone()),
            finding.severity.as_str().to_owned(),
            finding.state.as_str().to_owned(),
            of_rule(controls),
            finding.opened_at.to_rfc3339_opts(SecondsFormat::Secs, true),
            finding.evidence.shown(self.assets).map(ToString::to_string).unwrap_or_default(),
            of_rule(|rule| rule.definition.remediation.clone()),
            finding.id.to_string(),
        ]
    }
}

/// Returns the controls that a rule checks, such as `NIST SC-28, CIS 3.11`.
fn controls(rule: &Rule) -> String {
    let controls = rule.definition.controls.iter();
    let named: Vec<_> =
        controls.map(|control| format!("{} {}", control.framework, control.code)).collect();
    named.join(", ")
}
