//! Fixtures of rows that compliance runs write, for tests of code that reads these rows.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    base::{
        db::Tx,
        entity::{AssetId, RuleId, RuleVersionId, RunId, WaiverId},
        error::Result,
        id::Id,
    },
    compliance::rule::Severity,
};

/// A rule with a single version.
#[derive(Debug, Clone)]
pub struct RuleFixture {
    /// The rule's id, beginning `rul_`.
    pub id: RuleId,
    /// Id of the rule's version.
    pub version: RuleVersionId,
    /// The rule's key, e.g. `disk-encryption`.
    pub key: String,
    /// Slot of the rule: the index of its verdict code in `posture.verdicts`.
    pub slot: usize,
    /// Severity of a violation of the rule.
    pub severity: Severity,
}

/// Content of a rule, without its key, slot and severity.
#[derive(Debug, Clone, Copy)]
pub struct RuleContent<'a> {
    /// The condition, as a CEL expression.
    pub condition: &'a str,
    /// Evidence as pairs of name and CEL expression.
    pub evidence: &'a [(&'a str, &'a str)],
    /// Controls as pairs of framework and code.
    pub controls: &'a [(&'a str, &'a str)],
}

impl RuleFixture {
    /// Inserts a rule with its first version.
    pub async fn insert(
        tx: &Tx,
        key: &str,
        slot: usize,
        severity: Severity,
        text: RuleContent<'_>,
        at: DateTime<Utc>,
    ) -> Result<Self> {
        let rule = Self { id: Id::new(), version: Id::new(), key: key.to_owned(), slot, severity };
        let index = i16::try_from(slot).expect("slots are few");
        tx.exec(
            "INSERT INTO rule (org_id, id, key, slot, builtin, enabled, version, params, created_at, updated_at)
             VALUES ($1, $2, $3, $4, false, true, 1, '{}', $5, $5)",
            &[&tx.org(), &rule.id, &key, &index, &at],
        )
        .await?;
        let evidence: serde_json::Map<String, Value> =
            text.evidence.iter().map(|(name, cel)| ((*name).to_owned(), json!(cel))).collect();
        let control =
            |(framework, code): &(&str, &str)| json!({ "framework": framework, "code": code });
        let controls: Vec<Value> = text.controls.iter().map(control).collect();
        tx.exec(
            "INSERT INTO rule_version (org_id, id, rule_id, version, title, severity, controls, applies_to, params, condition,
                                       evidence, remediation, created_at)
             VALUES ($1, $2, $3, 1, $4, $5, $6, '{}', '{}', $7, $8, $9, $10)",
            &[
                &tx.org(),
                &rule.version,
                &rule.id,
                &format!("{key} must hold"),
                &severity.as_str(),
                &Value::Array(controls),
                &text.condition,
                &Value::Object(evidence),
                &format!("see to {key}"),
                &at,
            ],
        )
        .await?;
        Ok(rule)
    }
}

/// Inserts the posture of an asset, i.e. all of its verdicts and its score. `verdicts` has one verdict code per rule,
/// at the rule's slot. `flips` lists verdicts that will change with time: the slot, the time and the new verdict code.
///
/// # Errors
/// Any error of a statement.
pub async fn posture(
    tx: &Tx,
    asset: AssetId,
    rules: &[RuleFixture],
    verdicts: &str,
    flips: &[(usize, DateTime<Utc>, char)],
    at: DateTime<Utc>,
) -> Result<()> {
    let weight = |letters: &str| -> i32 {
        let counts =
            |rule: &&RuleFixture| letters.contains(char::from(verdicts.as_bytes()[rule.slot]));
        rules.iter().filter(counts).map(|rule| rule.severity.weight()).sum()
    };
    let (passed, failed) = (weight("P"), weight("F"));
    let score = (passed + failed > 0).then(|| {
        let millionths = i64::from(passed) * 100_000_000 / i64::from(passed + failed);
        i32::try_from(millionths).expect("at most a hundred percent")
    });
    let stored: Vec<(usize, i64, char)> =
        flips.iter().map(|(slot, at, to)| (*slot, at.timestamp_micros(), *to)).collect();
    let first = flips.iter().map(|(_, at, _)| *at).min();
    tx.exec(
        "INSERT INTO posture (org_id, asset_id, verdicts, passed_weight, failed_weight, waived_weight, whole_weight, score,
                              facts_hash, flips, flips_at, evaluated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, $9, $10, $11)",
        &[
            &tx.org(),
            &asset,
            &verdicts,
            &passed,
            &failed,
            &weight("W"),
            &weight("PFWNE"),
            &score,
            &first.map(|_| json!(stored)),
            &first,
            &at,
        ],
    )
    .await?;
    Ok(())
}

/// A finding to insert for a test.
#[derive(Debug, Clone)]
pub struct FindingFixture {
    /// State: `OPEN`, `WAIVED`, `FIXED` or `OUT_OF_SCOPE`.
    pub state: &'static str,
    /// Evidence of the finding, by name.
    pub evidence: Value,
    /// Waiver that covers the finding; `None` if the finding is not waived.
    pub waiver: Option<WaiverId>,
    /// Number of times that the finding was reopened.
    pub reopened: i32,
    /// Time at which the finding opened.
    pub opened_at: DateTime<Utc>,
    /// Time at which the finding ended; `None` while it is open or waived.
    pub ended_at: Option<DateTime<Utc>>,
}

impl FindingFixture {
    /// Returns an open finding without evidence.
    pub fn open(opened_at: DateTime<Utc>) -> Self {
        Self {
            state: "OPEN",
            evidence: json!({}),
            waiver: None,
            reopened: 0,
            opened_at,
            ended_at: None,
        }
    }

    /// Returns a finding that has ended as `FIXED` or `OUT_OF_SCOPE`.
    pub fn ended(opened_at: DateTime<Utc>, state: &'static str, ended_at: DateTime<Utc>) -> Self {
        Self { state, ended_at: Some(ended_at), ..Self::open(opened_at) }
    }

    /// Inserts the finding and returns its id.
    pub async fn insert(self, tx: &Tx, asset: AssetId, rule: &RuleFixture) -> Result<Uuid> {
        let id = Uuid::now_v7();
        let weight = i16::try_from(rule.severity.weight()).expect("weights are small");
        tx.exec(
            "INSERT INTO finding (org_id, id, asset_id, rule_id, version_id, severity, weight, state, evidence, waiver_id,
                                  reopened, opened_at, changed_at, ended_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
            &[
                &tx.org(),
                &id,
                &asset,
                &rule.id,
                &rule.version,
                &rule.severity.as_str(),
                &weight,
                &self.state,
                &self.evidence,
                &self.waiver,
                &self.reopened,
                &self.opened_at,
                &self.ended_at.unwrap_or(self.opened_at),
                &self.ended_at,
            ],
        )
        .await?;
        Ok(id)
    }
}

/// A compliance run to insert.
#[derive(Debug, Clone)]
pub struct RunFixture {
    /// State, e.g. `SUCCEEDED` or `FAILED`.
    pub state: &'static str,
    /// Asset filter of the run; `None` for a run over all assets.
    pub scope: Option<Value>,
    /// Number of assets that the run evaluated.
    pub assets: i32,
    /// Number of assets with a score, and the sum of their scores in millionths of a percent.
    pub scores: (i32, i64),
    /// Number of assets per rule: passed, failed, waived, not assessed, errors.
    pub tallies: Vec<[i32; 5]>,
    /// Time at which the run started.
    pub started_at: DateTime<Utc>,
    /// Time at which the run ended; `None` while it runs.
    pub finished_at: Option<DateTime<Utc>>,
}

impl RunFixture {
    /// Returns a successful run over all assets, without results.
    pub fn succeeded(started_at: DateTime<Utc>, finished_at: DateTime<Utc>) -> Self {
        Self {
            state: "SUCCEEDED",
            scope: None,
            assets: 0,
            scores: (0, 0),
            tallies: Vec::new(),
            started_at,
            finished_at: Some(finished_at),
        }
    }

    /// Inserts the run with these rules and returns its id. `tallies` must have one entry per rule.
    pub async fn insert(self, tx: &Tx, rules: &[RuleFixture]) -> Result<RunId> {
        let id = RunId::new();
        let snapshot = |rule: &RuleFixture| json!({ "slot": rule.slot, "rule": rule.id.uuid(), "version": rule.version.uuid(), "params": {} });
        let stored: Vec<Value> = rules.iter().map(snapshot).collect();
        let sum = |indexes: &[usize]| -> i32 {
            self.tallies.iter().flat_map(|row| indexes.iter().map(|index| row[*index])).sum()
        };
        let weight = |indexes: &[usize]| -> i64 {
            let of = |(row, rule): (&[i32; 5], &RuleFixture)| -> i64 {
                let verdicts: i32 = indexes.iter().map(|index| row[*index]).sum();
                i64::from(verdicts * rule.severity.weight())
            };
            self.tallies.iter().zip(rules).map(of).sum()
        };
        let tallies: Vec<i32> = self.tallies.iter().flatten().copied().collect();
        tx.exec(
            "INSERT INTO compliance_run (org_id, id, state, trigger, actor_kind, shards, started_at, finished_at, scope, scope_key,
                                         rules, assets, passed, failed, waived, not_assessed, errors, scored, score_sum,
                                         passed_weight, failed_weight, waived_weight, whole_weight, tallies)
             VALUES ($1, $2, $3, 'MANUAL', 'system', 1, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
                     $20, $21)",
            &[
                &tx.org(),
                &id,
                &self.state,
                &self.started_at,
                &self.finished_at,
                &self.scope,
                &self.scope.as_ref().map_or("all".to_owned(), Value::to_string),
                &Value::Array(stored),
                &self.assets,
                &sum(&[0]),
                &sum(&[1]),
                &sum(&[2]),
                &sum(&[3]),
                &sum(&[4]),
                &self.scores.0,
                &self.scores.1,
                &weight(&[0]),
                &weight(&[1]),
                &weight(&[2]),
                &weight(&[0, 1, 2, 3, 4]),
                &tallies,
            ],
        )
        .await?;
        Ok(id)
    }
}
