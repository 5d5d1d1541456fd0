//! What tests of compliance start from: a house whose assets were judged by three rules.

use chrono::{DateTime, Utc};
use domain::{
    Origin, Tx,
    base::page::PageRequest,
    compliance::rule::Severity,
    entity::{AssetId, RunId},
    inventory::asset::CreateAssetInput,
    testing::compliance::{KeptFinding, KeptRule, KeptRun, Says, posture},
};
use uuid::Uuid;

use crate::harness::{TestOrg, at, host};

pub(crate) const ALL: PageRequest =
    PageRequest { size: 100, backward: false, after: None, before: None };

/// A house with rules `low`, `high` and `critical` in slots 0, 1 and 2.
pub(crate) struct Judged {
    pub(crate) house: TestOrg,
    pub(crate) rules: [KeptRule; 3],
}

impl Judged {
    pub(crate) async fn new() -> Self {
        let house = TestOrg::new().await;
        let tx = house.db.write(house.org, Origin::system()).await.unwrap();
        let rules = rules(&tx).await;
        tx.commit().await.unwrap();
        Self { house, rules }
    }

    pub(crate) async fn read(&self) -> Tx {
        self.house.db.read(self.house.org).await.unwrap()
    }

    /// An asset with a posture.
    pub(crate) async fn asset(&self, name: &str, verdicts: &str) -> AssetId {
        self.flipping(host(name), verdicts, &[]).await
    }

    /// As [`Judged::asset`], with slots, times and what their verdicts become.
    pub(crate) async fn flipping(
        &self,
        input: CreateAssetInput,
        verdicts: &str,
        flips: &[(usize, DateTime<Utc>, char)],
    ) -> AssetId {
        let asset = self.house.asset(input).await.id;
        let tx = self.house.db.write(self.house.org, Origin::system()).await.unwrap();
        posture(&tx, asset, &self.rules, verdicts, flips, at(0)).await.unwrap();
        tx.commit().await.unwrap();
        asset
    }

    pub(crate) async fn find(&self, asset: AssetId, rule: usize, finding: KeptFinding) -> Uuid {
        let tx = self.house.db.write(self.house.org, Origin::system()).await.unwrap();
        let id = finding.keep(&tx, asset, &self.rules[rule]).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    pub(crate) async fn run(&self, run: KeptRun) -> RunId {
        let tx = self.house.db.write(self.house.org, Origin::system()).await.unwrap();
        let id = run.keep(&tx, &self.rules).await.unwrap();
        tx.commit().await.unwrap();
        id
    }
}

async fn rules(tx: &Tx) -> [KeptRule; 3] {
    let says = Says {
        condition: "attr.disk_encrypted",
        evidence: &[("observed", "attr.disk_encrypted")],
        controls: &[("NIST", "SC-28")],
    };
    let mut rules = Vec::new();
    let all = [("low", Severity::Low), ("high", Severity::High), ("critical", Severity::Critical)];
    for (slot, (key, severity)) in all.into_iter().enumerate() {
        rules.push(KeptRule::keep(tx, key, slot, severity, says, at(0)).await.unwrap());
    }
    rules.try_into().unwrap()
}

/// A run of all assets that ended at this time and found this, by rule.
pub(crate) fn run(ended: i64, tallies: [[i32; 5]; 3]) -> KeptRun {
    let tallies = tallies.to_vec();
    KeptRun { tallies, assets: 3, ..KeptRun::succeeded(at(ended - 5), at(ended)) }
}
