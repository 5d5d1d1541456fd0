//! Transitions of findings: the findings that one evaluation of some assets opened, changed or ended. They are written
//! in a fixed number of statements.

use chrono::{DateTime, Utc};
use tokio_postgres::Row;

use super::FindingState;
use crate::{
    base::{
        db::{Param, Tx, column},
        entity::{AssetId, FindingId, RuleId, RuleVersionId, WaiverId},
        error::Result,
    },
    compliance::{
        evidence::Evidence,
        posture::due,
        rule::{CompiledRule, Facts, Severity},
    },
};

/// Form of the `INSERT` statements for postures and findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InsertMode {
    /// A plain `INSERT`: no posture and no live finding is stored for any of the assets.
    Plain,
    /// An upsert: some rows may already be stored.
    Upsert,
}

impl InsertMode {
    pub(crate) async fn of(tx: &Tx, facts: &[Facts]) -> Result<Self> {
        let assets = || facts.iter().map(|facts| facts.asset);
        let (Some(first), Some(last)) = (assets().min(), assets().max()) else {
            return Ok(Self::Upsert);
        };
        // With two concurrent runs of the same assets, each could see no rows and insert them. Ordered like the index:
        // without statistics Postgres would scan the whole table.
        let row: Row = tx
            .one(
                "SELECT (SELECT asset_id FROM finding WHERE asset_id BETWEEN $1 AND $2 AND ended_at IS NULL
                         ORDER BY asset_id LIMIT 1) IS NOT NULL
                     OR (SELECT count(*) > 1 FROM compliance_run WHERE state IN ('QUEUED', 'RUNNING')) AS any",
                &[&first, &last],
            )
            .await?;
        let may_conflict = row.try_get("any")? || due::is_refreshing(tx).await?;
        Ok(if may_conflict { Self::Upsert } else { Self::Plain })
    }
}

/// A failure of one rule on one asset, as an evaluation produced it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) asset: AssetId,
    pub(crate) rule: RuleId,
    pub(crate) version: RuleVersionId,
    pub(crate) severity: Severity,
    pub(crate) evidence: Evidence,
    /// The waiver that covers the failure; `None` if no waiver covers it.
    pub(crate) waiver: Option<WaiverId>,
}

impl Failure {
    const fn state(&self) -> FindingState {
        if self.waiver.is_some() { FindingState::Waived } else { FindingState::Open }
    }
}

/// A live finding of a rule that now ends with an error. The finding stays live and keeps its evidence; its waiver and
/// severity are updated.
#[derive(Debug)]
pub(crate) struct Unevaluable {
    asset: AssetId,
    rule: RuleId,
    severity: Severity,
    waiver: Option<WaiverId>,
}

impl Unevaluable {
    pub(crate) const fn new(asset: AssetId, rule: &CompiledRule, waiver: Option<WaiverId>) -> Self {
        Self { asset, rule: rule.rule.id, severity: rule.rule.definition.severity, waiver }
    }
}

/// A failure that ended: the asset passes the rule, or the finding went out of scope.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) asset: AssetId,
    pub(crate) rule: RuleId,
    pub(crate) state: FindingState,
}

/// Transitions of findings in one evaluation, grouped by kind.
#[derive(Debug)]
pub(crate) struct Transitions {
    /// Form of the `INSERT` for the findings that open.
    insert_mode: InsertMode,
    pub(crate) opened: Vec<Failure>,
    pub(crate) changed: Vec<Failure>,
    pub(crate) unevaluable: Vec<Unevaluable>,
    pub(crate) ended: Vec<Ended>,
}

impl Transitions {
    /// Returns an empty list of transitions.
    pub(crate) const fn new(insert_mode: InsertMode) -> Self {
        Self {
            insert_mode,
            opened: Vec::new(),
            changed: Vec::new(),
            unevaluable: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// Writes the transitions. Returns the number of findings that opened, and the number that were fixed.
    pub(crate) async fn record(&self, tx: &Tx, now: DateTime<Utc>) -> Result<(i32, i32)> {
        let fixed = self.write_ended(tx, now).await?;
        self.write_changed(tx, now).await?;
        self.write_unevaluable(tx, now).await?;
        Ok((self.write_opened(tx, now).await?, fixed))
    }

    async fn write_opened(&self, tx: &Tx, now: DateTime<Utc>) -> Result<i32> {
        if self.opened.is_empty() {
            return Ok(0);
        }
        let rows: Vec<&Failure> = self.opened.iter().collect();
        let (ids, assets) =
            (column(&rows, |_| FindingId::new()), column(&rows, |failure| failure.asset));
        let (rules, versions) =
            (column(&rows, |failure| failure.rule), column(&rows, |failure| failure.version));
        let severities = column(&rows, |failure| failure.severity.as_str());
        let weights = column(&rows, |failure| failure.severity.weight());
        let states = column(&rows, |failure| failure.state().as_str());
        let (evidence, waivers) = (
            column(&rows, |failure| failure.evidence.stored()),
            column(&rows, |failure| failure.waiver),
        );
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
        match self.insert_mode {
            // No live finding can exist here, and looking for one would cost as much as the insert.
            InsertMode::Plain => {
                tx.exec(&insert, &params).await?;
                Ok(i32::try_from(rows.len()).unwrap_or(i32::MAX))
            }
            // A finding that is already live is updated and does not count as opened.
            InsertMode::Upsert => {
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

    /// Returns the SQL expression for the number of earlier findings of the same rule on the same asset. The expression
    /// is `0` if no finding of the organization has ended yet, so that the first run does not count row by row.
    async fn reopened(tx: &Tx) -> Result<&'static str> {
        // Ordered like the index: without statistics Postgres would scan the whole table.
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
        let rows: Vec<&Failure> = self.changed.iter().collect();
        tx.exec(
            "UPDATE finding SET version_id = new.version_id, severity = new.severity, weight = new.weight, state = new.state,
                                evidence = new.evidence, waiver_id = new.waiver_id, changed_at = $1
             FROM UNNEST($2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::int[], $7::text[], $8::json[], $9::uuid[])
                  AS new (asset_id, rule_id, version_id, severity, weight, state, evidence, waiver_id)
             WHERE finding.asset_id = new.asset_id AND finding.rule_id = new.rule_id AND finding.ended_at IS NULL",
            &[
                &now,
                &column(&rows, |failure| failure.asset),
                &column(&rows, |failure| failure.rule),
                &column(&rows, |failure| failure.version),
                &column(&rows, |failure| failure.severity.as_str()),
                &column(&rows, |failure| failure.severity.weight()),
                &column(&rows, |failure| failure.state().as_str()),
                &column(&rows, |failure| failure.evidence.stored()),
                &column(&rows, |failure| failure.waiver),
            ],
        )
        .await?;
        Ok(())
    }

    async fn write_unevaluable(&self, tx: &Tx, now: DateTime<Utc>) -> Result<()> {
        if self.unevaluable.is_empty() {
            return Ok(());
        }
        let rows: Vec<&Unevaluable> = self.unevaluable.iter().collect();
        tx.exec(
            "UPDATE finding SET severity = new.severity, weight = new.weight, waiver_id = new.waiver_id, changed_at = $1,
                                state = CASE WHEN new.waiver_id IS NULL THEN 'OPEN' ELSE 'WAIVED' END
             FROM UNNEST($2::uuid[], $3::uuid[], $4::text[], $5::int[], $6::uuid[])
                  AS new (asset_id, rule_id, severity, weight, waiver_id)
             WHERE finding.asset_id = new.asset_id AND finding.rule_id = new.rule_id AND finding.ended_at IS NULL",
            &[
                &now,
                &column(&rows, |unevaluable| unevaluable.asset),
                &column(&rows, |unevaluable| unevaluable.rule),
                &column(&rows, |unevaluable| unevaluable.severity.as_str()),
                &column(&rows, |unevaluable| unevaluable.severity.weight()),
                &column(&rows, |unevaluable| unevaluable.waiver),
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
        // An ended finding has no waiver: only live findings can be waived.
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
