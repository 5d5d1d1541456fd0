//! What compliance runs leave behind, written by hand: for tests of what reads it.

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

/// A rule and its version.
#[derive(Debug, Clone)]
pub struct RuleFixture {
    /// Its id.
    pub id: RuleId,
    /// Its version's id.
    pub version: RuleVersionId,
    /// Its key.
    pub key: String,
    /// Its place in verdicts.
    pub slot: usize,
    /// How bad it is to break it.
    pub severity: Severity,
}

/// What a rule text, beside its key, slot and severity.
#[derive(Debug, Clone, Copy)]
pub struct RuleText<'a> {
    /// CEL.
    pub condition: &'a str,
    /// CEL by name.
    pub evidence: &'a [(&'a str, &'a str)],
    /// Framework and code of what it checks.
    pub controls: &'a [(&'a str, &'a str)],
}

impl RuleFixture {
    /// A rule in its first version.
    pub async fn insert(
        tx: &Tx,
        key: &str,
        slot: usize,
        severity: Severity,
        text: RuleText<'_>,
        at: DateTime<Utc>,
    ) -> Result<Self> {
        let rule = Self { id: Id::new(), version: Id::new(), key: key.to_owned(), slot, severity };
        let place = i16::try_from(slot).expect("slots are few");
        tx.exec(
            "INSERT INTO rule (org_id, id, key, slot, builtin, enabled, version, params, created_at, updated_at)
             VALUES ($1, $2, $3, $4, false, true, 1, '{}', $5, $5)",
            &[&tx.org(), &rule.id, &key, &place, &at],
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

/// Keeps an asset's posture: `verdicts` has one letter a rule at its slot, `flips` slots, times and letters.
///
/// # Errors
/// As a statement fails.
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
    let kept: Vec<(usize, i64, char)> =
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
            &first.map(|_| json!(kept)),
            &first,
            &at,
        ],
    )
    .await?;
    Ok(())
}

/// A finding, as it is kept.
#[derive(Debug, Clone)]
pub struct FindingFixture {
    /// `OPEN`, `WAIVED`, `FIXED` or `OUT_OF_SCOPE`.
    pub state: &'static str,
    /// What was seen.
    pub evidence: Value,
    /// What allows it.
    pub waiver: Option<WaiverId>,
    /// How often the asset had broken the rule before.
    pub reopened: i32,
    /// Since when.
    pub opened_at: DateTime<Utc>,
    /// Until when.
    pub ended_at: Option<DateTime<Utc>>,
}

impl FindingFixture {
    /// One that is open.
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

    /// One that has ended as `FIXED` or `OUT_OF_SCOPE`.
    pub fn ended(opened_at: DateTime<Utc>, state: &'static str, ended_at: DateTime<Utc>) -> Self {
        Self { state, ended_at: Some(ended_at), ..Self::open(opened_at) }
    }

    /// Keeps it; returns its id.
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

/// A run, as it is kept.
#[derive(Debug, Clone)]
pub struct RunFixture {
    /// `SUCCEEDED`, `FAILED`, …
    pub state: &'static str,
    /// Its filter; all assets without it.
    pub scope: Option<Value>,
    /// Assets that it judged.
    pub assets: i32,
    /// How many of them have a score, and their sum in millionths of a percent.
    pub scores: (i32, i64),
    /// By rule: passed, failed, waived, not assessed, errors.
    pub tallies: Vec<[i32; 5]>,
    /// When it was started.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}

impl RunFixture {
    /// A run of all assets that went well.
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

    /// Keeps it, by these rules; `tallies` has one row of each.
    pub async fn insert(self, tx: &Tx, rules: &[RuleFixture]) -> Result<RunId> {
        let id = RunId::new();
        let snapshot = |rule: &RuleFixture| json!({ "slot": rule.slot, "rule": rule.id.uuid(), "version": rule.version.uuid(), "params": {} });
        let kept: Vec<Value> = rules.iter().map(snapshot).collect();
        let sum = |places: &[usize]| -> i32 {
            self.tallies.iter().flat_map(|row| places.iter().map(|place| row[*place])).sum()
        };
        let weight = |places: &[usize]| -> i64 {
            let of = |(row, rule): (&[i32; 5], &RuleFixture)| -> i64 {
                let verdicts: i32 = places.iter().map(|place| row[*place]).sum();
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
                &Value::Array(kept),
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
