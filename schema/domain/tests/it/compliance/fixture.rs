//! Fixture of compliance tests: an organization with three rules, and assets with postures.

use chrono::{DateTime, Utc};
use domain::{
    Origin, Tx,
    base::page::PageRequest,
    compliance::rule::Severity,
    entity::{AssetId, RunId},
    inventory::asset::CreateAssetInput,
    testing::compliance::{FindingFixture, RuleContent, RuleFixture, RunFixture, posture},
};
use uuid::Uuid;

use crate::harness::{TestOrg, at, host};

pub(crate) const ALL: PageRequest =
    PageRequest { size: 100, backward: false, after: None, before: None };

/// An organization with rules `low`, `high` and `critical` in slots 0, 1 and 2.
pub(crate) struct ComplianceFixture {
    pub(crate) test: TestOrg,
    pub(crate) rules: [RuleFixture; 3],
}

impl ComplianceFixture {
    pub(crate) async fn new() -> Self {
        let test = TestOrg::new().await;
        let tx = test.db.write(test.org, Origin::system()).await.unwrap();
        let rules = rules(&tx).await;
        tx.commit().await.unwrap();
        Self { test, rules }
    }

    pub(crate) async fn read(&self) -> Tx {
        self.test.db.read(self.test.org).await.unwrap()
    }

    /// Creates an asset with a posture.
    pub(crate) async fn asset(&self, name: &str, verdicts: &str) -> AssetId {
        self.flipping(host(name), verdicts, &[]).await
    }

    /// Like [`ComplianceFixture::asset`], with flips: slots, times and the verdicts after them.
    pub(crate) async fn flipping(
        &self,
        input: CreateAssetInput,
        verdicts: &str,
        flips: &[(usize, DateTime<Utc>, char)],
    ) -> AssetId {
        let asset = self.test.asset(input).await.id;
        let tx = self.test.db.write(self.test.org, Origin::system()).await.unwrap();
        posture(&tx, asset, &self.rules, verdicts, flips, at(0)).await.unwrap();
        tx.commit().await.unwrap();
        asset
    }

    pub(crate) async fn find(&self, asset: AssetId, rule: usize, finding: FindingFixture) -> Uuid {
        let tx = self.test.db.write(self.test.org, Origin::system()).await.unwrap();
        let id = finding.insert(&tx, asset, &self.rules[rule]).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    pub(crate) async fn run(&self, run: RunFixture) -> RunId {
        let tx = self.test.db.write(self.test.org, Origin::system()).await.unwrap();
        let id = run.insert(&tx, &self.rules).await.unwrap();
        tx.commit().await.unwrap();
        id
    }
}

async fn rules(tx: &Tx) -> [RuleFixture; 3] {
    let text = RuleContent {
        condition: "attr.disk_encrypted",
        evidence: &[("observed", "attr.disk_encrypted")],
        controls: &[("NIST", "SC-28")],
    };
    let mut rules = Vec::new();
    let all = [("low", Severity::Low), ("high", Severity::High), ("critical", Severity::Critical)];
    for (slot, (key, severity)) in all.into_iter().enumerate() {
        rules.push(RuleFixture::insert(tx, key, slot, severity, text, at(0)).await.unwrap());
    }
    rules.try_into().unwrap()
}

/// Returns a run of all assets that ended at this time with these tallies by rule.
pub(crate) fn run(ended: i64, tallies: [[i32; 5]; 3]) -> RunFixture {
    let tallies = tallies.to_vec();
    RunFixture { tallies, assets: 3, ..RunFixture::succeeded(at(ended - 5), at(ended)) }
}
