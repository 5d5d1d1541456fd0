//! What became of findings in one look at some assets: written in a few statements, however many they are.

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio_postgres::Row;

use super::FindingState;
use crate::{
    base::{
        db::{Param, Tx, column},
        entity::{AssetId, FindingId, RuleId, RuleVersionId, WaiverId},
        error::Result,
    },
    compliance::{
        posture::due,
        rule::{CompiledRule, Facts, Severity},
    },
};

/// Whether nothing can be in the way of what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// Nothing is kept of any of the assets, and none of them breaks a rule.
    Yes,
    /// Something may be.
    No,
}

impl First {
    pub(crate) async fn of(tx: &Tx, facts: &[Facts]) -> Result<Self> {
        let assets = || facts.iter().map(|facts| facts.asset);
        let (Some(first), Some(last)) = (assets().min(), assets().max()) else {
            return Ok(Self::No);
        };
        // Two runs may look at the same assets at once, and each see nothing there.
        // In the order of the index: without statistics Postgres would look through the whole table.
        let row: Row = tx
            .one(
                "SELECT (SELECT asset_id FROM finding WHERE asset_id BETWEEN $1 AND $2 AND ended_at IS NULL
                         ORDER BY asset_id LIMIT 1) IS NOT NULL
                     OR (SELECT count(*) > 1 FROM compliance_run WHERE state IN ('QUEUED', 'RUNNING')) AS any",
                &[&first, &last],
            )
            .await?;
        let may_be = row.try_get("any")? || due::is_refreshing(tx).await?;
        Ok(if may_be { Self::No } else { Self::Yes })
    }
}

/// A rule that an asset breaks, as a look saw it.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) asset: AssetId,
    pub(crate) rule: RuleId,
    pub(crate) version: RuleVersionId,
    pub(crate) severity: Severity,
    pub(crate) evidence: Value,
    /// What allows it.
    pub(crate) waiver: Option<WaiverId>,
}

impl Broken {
    const fn state(&self) -> FindingState {
        if self.waiver.is_some() { FindingState::Waived } else { FindingState::Open }
    }
}

/// A rule that an asset broke when it could last be judged: what allows it may have changed, and how bad it is.
#[derive(Debug)]
pub(crate) struct Restated {
    asset: AssetId,
    rule: RuleId,
    severity: Severity,
    waiver: Option<WaiverId>,
}

impl Restated {
    pub(crate) const fn new(asset: AssetId, rule: &CompiledRule, waiver: Option<WaiverId>) -> Self {
        Self { asset, rule: rule.rule.id, severity: rule.rule.definition.severity, waiver }
    }
}

/// A rule that an asset no longer breaks, or is no longer judged by.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) asset: AssetId,
    pub(crate) rule: RuleId,
    pub(crate) state: FindingState,
}

/// What became of findings.
#[derive(Debug)]
pub(crate) struct Transitions {
    /// Whether nothing can be in the way.
    first: First,
    pub(crate) opened: Vec<Broken>,
    pub(crate) changed: Vec<Broken>,
    pub(crate) restated: Vec<Restated>,
    pub(crate) ended: Vec<Ended>,
}

impl Transitions {
    /// None yet.
    pub(crate) const fn new(first: First) -> Self {
        Self {
            first,
            opened: Vec::new(),
            changed: Vec::new(),
            restated: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// Writes them. Returns how many opened, and how many are fixed.
    pub(crate) async fn record(&self, tx: &Tx, now: DateTime<Utc>) -> Result<(i32, i32)> {
        let fixed = self.write_ended(tx, now).await?;
        self.write_changed(tx, now).await?;
        self.write_restated(tx, now).await?;
        Ok((self.write_opened(tx, now).await?, fixed))
    }

    async fn write_opened(&self, tx: &Tx, now: DateTime<Utc>) -> Result<i32> {
        if self.opened.is_empty() {
            return Ok(0);
        }
        let rows: Vec<&Broken> = self.opened.iter().collect();
        let (ids, assets) =
            (column(&rows, |_| FindingId::new()), column(&rows, |broken| broken.asset));
        let (rules, versions) =
            (column(&rows, |broken| broken.rule), column(&rows, |broken| broken.version));
        let severities = column(&rows, |broken| broken.severity.as_str());
        let weights = column(&rows, |broken| broken.severity.weight());
        let states = column(&rows, |broken| broken.state().as_str());
        let (evidence, waivers) =
            (column(&rows, |broken| &broken.evidence), column(&rows, |broken| broken.waiver));
        let insert = format!(
            "INSERT INTO finding (org_id, id, asset_id, rule_id, version_id, severity, weight, state, evidence, waiver_id,
                                  reopened, opened_at, changed_at)
             SELECT $1, new.*, {}, $2, $2
             FROM UNNEST($3::uuid[], $4::uuid[], $5::uuid[], $6::uuid[], $7::text[], $8::int[], $9::text[],
                         $10::json[], $11::uuid[])
                  AS new (id, asset_id, rule_id, version_id, severity, weight, state, evidence, waiver_id)",
            Self::reopened(tx).await?
        );
        let org = tx.org();
        let params: [Param<'_>; 11] = [
            &org,
            &now,
            &ids,
            &assets,
            &rules,
            &versions,
            &severities,
            &weights,
            &states,
            &evidence,
            &waivers,
        ];
        match self.first {
            // Looking for a live one would cost as much as writing.
            First::Yes => {
                tx.exec(&insert, &params).await?;
                Ok(i32::try_from(rows.len()).unwrap_or(i32::MAX))
            }
            // What was there already did not open.
            First::No => {
                let sql = format!(
                    "WITH written AS (
                         {insert}
                         ON CONFLICT (org_id, asset_id, rule_id) WHERE ended_at IS NULL DO UPDATE SET
                             version_id = EXCLUDED.version_id, severity = EXCLUDED.severity, weight = EXCLUDED.weight,
                             state = EXCLUDED.state, evidence = EXCLUDED.evidence, waiver_id = EXCLUDED.waiver_id,
                             changed_at = EXCLUDED.changed_at
                         RETURNING finding.xmax = 0 AS is_new)
                     SELECT count(*) FILTER (WHERE is_new)::int AS opened FROM written"
                );
                Ok(tx.one::<Row>(&sql, &params).await?.try_get("opened")?)
            }
        }
    }

    /// How often an asset has broken a rule before, as an expression. Where nothing ever ended nothing opens again: the first
    /// run of all does not ask for each.
    async fn reopened(tx: &Tx) -> Result<&'static str> {
        // In the order of the index: without statistics Postgres would look through the whole table.
        let sql = "SELECT (SELECT ended_at FROM finding WHERE state IN ('FIXED', 'OUT_OF_SCOPE')
                           ORDER BY ended_at LIMIT 1) IS NOT NULL AS any";
        let any = tx.one::<Row>(sql, &[]).await?.try_get("any")?;
        Ok(if any {
            "(SELECT count(*) FROM finding AS before WHERE before.asset_id = new.asset_id
                AND before.rule_id = new.rule_id AND before.ended_at IS NOT NULL)"
        } else {
            "0"
        })
    }

    async fn write_changed(&self, tx: &Tx, now: DateTime<Utc>) -> Result<()> {
        if self.changed.is_empty() {
            return Ok(());
        }
        let rows: Vec<&Broken> = self.changed.iter().collect();
        tx.exec(
            "UPDATE finding SET version_id = new.version_id, severity = new.severity, weight = new.weight, state = new.state,
                                evidence = new.evidence, waiver_id = new.waiver_id, changed_at = $1
             FROM UNNEST($2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::int[], $7::text[], $8::json[], $9::uuid[])
                  AS new (asset_id, rule_id, version_id, severity, weight, state, evidence, waiver_id)
             WHERE finding.asset_id = new.asset_id AND finding.rule_id = new.rule_id AND finding.ended_at IS NULL",
            &[
                &now,
                &column(&rows, |broken| broken.asset),
                &column(&rows, |broken| broken.rule),
                &column(&rows, |broken| broken.version),
                &column(&rows, |broken| broken.severity.as_str()),
                &column(&rows, |broken| broken.severity.weight()),
                &column(&rows, |broken| broken.state().as_str()),
                &column(&rows, |broken| &broken.evidence),
                &column(&rows, |broken| broken.waiver),
            ],
        )
        .await?;
        Ok(())
    }

    async fn write_restated(&self, tx: &Tx, now: DateTime<Utc>) -> Result<()> {
        if self.restated.is_empty() {
            return Ok(());
        }
        let rows: Vec<&Restated> = self.restated.iter().collect();
        tx.exec(
            "UPDATE finding SET severity = new.severity, weight = new.weight, waiver_id = new.waiver_id, changed_at = $1,
                                state = CASE WHEN new.waiver_id IS NULL THEN 'OPEN' ELSE 'WAIVED' END
             FROM UNNEST($2::uuid[], $3::uuid[], $4::text[], $5::int[], $6::uuid[])
                  AS new (asset_id, rule_id, severity, weight, waiver_id)
             WHERE finding.asset_id = new.asset_id AND finding.rule_id = new.rule_id AND finding.ended_at IS NULL",
            &[
                &now,
                &column(&rows, |restated| restated.asset),
                &column(&rows, |restated| restated.rule),
                &column(&rows, |restated| restated.severity.as_str()),
                &column(&rows, |restated| restated.severity.weight()),
                &column(&rows, |restated| restated.waiver),
            ],
        )
        .await?;
        Ok(())
    }

    async fn write_ended(&self, tx: &Tx, now: DateTime<Utc>) -> Result<i32> {
        if self.ended.is_empty() {
            return Ok(0);
        }
        let rows: Vec<&Ended> = self.ended.iter().collect();
        // The waiver stays only on what it still allows.
        let row: Row = tx.one(
            "WITH written AS (
             UPDATE finding SET state = ended.state, waiver_id = NULL, ended_at = GREATEST($1, opened_at), changed_at = $1
             FROM UNNEST($2::uuid[], $3::uuid[], $4::text[]) AS ended (asset_id, rule_id, state)
             WHERE finding.asset_id = ended.asset_id AND finding.rule_id = ended.rule_id AND finding.ended_at IS NULL
             RETURNING finding.state)
             SELECT count(*) FILTER (WHERE state = 'FIXED')::int AS fixed FROM written",
            &[
                &now,
                &column(&rows, |ended| ended.asset),
                &column(&rows, |ended| ended.rule),
                &column(&rows, |ended| ended.state.as_str()),
            ],
        )
        .await?;
        Ok(row.try_get("fixed")?)
    }
}
