//! What failed at the end of a run, as a file: one row a finding, page by page, however many there are, the newest first. That
//! order does not change while the file is read, however slowly, so that no row is left out or comes twice.

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
    compliance::{finding::Finding, rule::Rule},
    inventory::{asset::Asset, export::put_row},
};

/// Findings of a page.
const PAGE: usize = 2_000;

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

/// Whether a report says which assets it is about: for those who may see them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assets {
    /// It does.
    Told,
    /// Their names, and what else there is of them, stay out.
    Withheld,
}

/// The findings of a report on their way out.
#[derive(Debug)]
pub struct FindingFile {
    report: Report,
    assets: Assets,
    after: Option<Position>,
    is_whole: bool,
    /// As they were in the versions seen so far.
    rules: HashMap<RuleVersionId, Rule>,
}

/// What the rows of a page refer to.
struct Referred {
    assets: HashMap<AssetId, Asset>,
    owners: HashMap<UserId, User>,
}

impl FindingFile {
    /// Begins a file of what failed.
    pub fn begin(report: Report, assets: Assets) -> Self {
        Self { report, assets, after: None, is_whole: false, rules: HashMap::new() }
    }

    /// The first line.
    pub fn header(&self) -> Vec<u8> {
        let mut line = Vec::new();
        put_row(COLUMNS.into_iter(), &mut line);
        line
    }

    /// The next rows; none where all have been written. Each page may be read in a transaction of its own: what failed at
    /// a time does not change, but how bad it is, its evidence and whether a waiver allows it are as of that page.
    pub async fn page(&mut self, tx: &Tx) -> Result<Option<Vec<u8>>> {
        if self.is_whole {
            return Ok(None);
        }
        let request =
            PageRequest { size: PAGE, backward: false, after: self.after.take(), before: None };
        let page = self.report.findings_by_id(tx, &request).await?;
        self.is_whole = !page.has_next;
        self.after = page.rows.last().map(Finding::position);
        let referred = self.refer(tx, &page.rows).await?;
        let mut content = Vec::new();
        for finding in &page.rows {
            let cells = self.cells(finding, &referred);
            put_row(cells.iter().map(String::as_str), &mut content);
        }
        Ok(Some(content))
    }

    async fn refer(&mut self, tx: &Tx, findings: &[Finding]) -> Result<Referred> {
        let mut versions: Vec<_> = findings.iter().map(|finding| finding.version_id).collect();
        versions.sort_unstable();
        versions.dedup();
        versions.retain(|version| !self.rules.contains_key(version));
        if !versions.is_empty() {
            self.rules.extend(Rule::of_versions(tx, &versions).await?);
        }
        let (mut assets, mut owners) = (Vec::new(), Vec::new());
        if self.assets == Assets::Told {
            let mut ids: Vec<_> = findings.iter().map(|finding| finding.asset_id).collect();
            ids.sort_unstable();
            ids.dedup();
            assets = Asset::of_ids(tx, &ids).await?;
            let mut ids: Vec<_> = assets.iter().filter_map(|asset| asset.owner_id).collect();
            ids.sort_unstable();
            ids.dedup();
            owners = User::of_ids(tx, &ids).await?;
        }
        Ok(Referred {
            assets: assets.into_iter().map(|asset| (asset.id, asset)).collect(),
            owners: owners.into_iter().map(|owner| (owner.id, owner)).collect(),
        })
    }

    fn cells(&self, finding: &Finding, referred: &Referred) -> [String; COLUMNS.len()] {
        let asset = referred.assets.get(&finding.asset_id);
        let of_asset = |text: fn(&Asset) -> String| asset.map(text).unwrap_or_default();
        let owner = asset.and_then(|asset| referred.owners.get(&asset.owner_id?));
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
            finding.evidence.to_string(),
            of_rule(|rule| rule.definition.remediation.clone()),
            finding.id.to_string(),
        ]
    }
}

/// The controls that a rule checks, such as `NIST SC-28, CIS 3.11`.
fn controls(rule: &Rule) -> String {
    let controls = rule.definition.controls.iter();
    let named: Vec<_> =
        controls.map(|control| format!("{} {}", control.framework, control.code)).collect();
    named.join(", ")
}
