//! SQL for rules: loading, and writing the builtin ones. `rule/store/save` saves rules and parameters that users set,
//! within the budget of `rule/store/budget`; `rule/store/version` reads past versions.
//!
//! Every writer first acquires the rule lock of the organization, so concurrent writers never assign the same slot or
//! version number.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Builtin, CompiledRule, Definition, Params, Rule, Ruleset, Severity};
use crate::{
    access::audit::Entry,
    base::{
        actor::Actor,
        db::{FromRow, Tx},
        entity::{RuleId, RuleVersionId},
        error::{Error, Result},
        stale::{self, Subject},
    },
};

mod budget;
mod save;
mod version;

/// A rule's row joined with its current version.
#[derive(Clone)]
pub(super) struct RuleRow {
    pub(super) rule: Rule,
    pub(super) slot: i16,
    pub(super) version: RuleVersionId,
    /// Parameters that the organization set.
    pub(super) overrides: Value,
}

macro_rules! select {
    ($version:literal) => {
        concat!(
            "SELECT rule.id, rule.key, rule.slot, rule.builtin, rule.enabled, rule.params AS overrides,
                    rule_version.version, rule_version.id AS version_id, rule_version.title, rule_version.severity,
                    rule_version.controls, rule_version.applies_to, rule_version.params, rule_version.condition,
                    rule_version.evidence, rule_version.remediation
             FROM rule JOIN rule_version ON rule_version.org_id = rule.org_id AND rule_version.rule_id = rule.id",
            $version
        )
    };
}

/// Selects the current version of each rule.
const SELECT: &str = select!(" AND rule_version.version = rule.version");
/// Selects all versions of each rule.
const SELECT_ANY: &str = select!("");

fn corrupt(column: &'static str) -> Error {
    Error::Corrupt { table: "rule_version", column }
}

impl FromRow for RuleRow {
    fn from_row(row: &Row) -> Result<Self> {
        let json = |column| row.try_get::<_, Value>(column);
        let definition = Definition {
            title: row.try_get("title")?,
            severity: Severity::from_column(row.try_get("severity")?)?,
            controls: serde_json::from_value(json("controls")?).map_err(|_| corrupt("controls"))?,
            applies_to: serde_json::from_value(json("applies_to")?)
                .map_err(|_| corrupt("applies_to"))?,
            params: json("params")?,
            condition: row.try_get("condition")?,
            evidence: serde_json::from_value(json("evidence")?).map_err(|_| corrupt("evidence"))?,
            remediation: row.try_get("remediation")?,
        };
        let overrides = json("overrides")?;
        Ok(Self {
            slot: row.try_get("slot")?,
            version: row.try_get("version_id")?,
            rule: Rule {
                id: row.try_get("id")?,
                key: row.try_get("key")?,
                version: row.try_get("version")?,
                builtin: row.try_get("builtin")?,
                enabled: row.try_get("enabled")?,
                params: effective(&definition.params, &overrides),
                definition,
            },
            overrides,
        })
    }
}

/// Returns the effective parameters. If the parameters are invalid for this server version, returns the overrides
/// unchanged; the verdict of the rule is then an error.
fn effective(defaults: &Value, overrides: &Value) -> Value {
    let params = Params::declared(defaults).and_then(|params| params.with(overrides));
    params.map_or_else(|_| overrides.clone(), |params| params.to_value())
}

impl RuleRow {
    async fn all(tx: &Tx) -> Result<Vec<Self>> {
        tx.all(&format!("{SELECT} ORDER BY rule.slot"), &[]).await
    }

    /// Returns the saved rule with this key, or `None`.
    async fn find(tx: &Tx, key: &str) -> Result<Option<Self>> {
        if key.contains('\0') {
            return Ok(None); // Postgres text cannot contain NUL and rejects it as a parameter.
        }
        tx.opt(&format!("{SELECT} WHERE rule.key = $1"), &[&key]).await
    }

    fn rule(self) -> Result<CompiledRule> {
        let slot = usize::try_from(self.slot)
            .map_err(|_| Error::Corrupt { table: "rule", column: "slot" })?;
        Ok(CompiledRule::new(self.rule, slot, self.version))
    }

    /// Returns the rule with the content of the binary if the binary has a newer version of a builtin rule. Overrides
    /// that no longer match a parameter's type are dropped, as when the new version is saved.
    fn updated(self) -> Rule {
        match Builtin::of_key(&self.rule.key) {
            Some(builtin) if self.rule.builtin && builtin.version > self.rule.version => {
                let overrides = builtin.params.matching_overrides(&self.overrides);
                Rule {
                    version: builtin.version,
                    definition: builtin.definition.clone(),
                    params: effective(&builtin.definition.params, &overrides),
                    ..self.rule
                }
            }
            _ => self.rule,
        }
    }
}

impl Ruleset {
    /// Loads the rules that the organization has saved.
    pub async fn load(tx: &Tx) -> Result<Self> {
        Self::of_saved(RuleRow::all(tx).await?)
    }

    /// Loads the rules. First writes builtin rules that are missing or have an older version. Requires a read-write
    /// transaction.
    pub async fn ensure(tx: &Tx, now: DateTime<Utc>) -> Result<Self> {
        Self::of_saved(load_updated(tx, now).await?)
    }

    /// Loads the rules that a run stored with [`Self::snapshot`].
    ///
    /// # Errors
    /// `Corrupt` if the snapshot cannot be read.
    pub async fn of_run(tx: &Tx, snapshot: &Value) -> Result<Self> {
        #[derive(serde::Deserialize)]
        struct StoredRule {
            slot: usize,
            version: Uuid,
            params: Value,
        }
        let stored: Vec<StoredRule> = serde_json::from_value(snapshot.clone())
            .map_err(|_| Error::Corrupt { table: "compliance_run", column: "rules" })?;
        let versions: Vec<Uuid> = stored.iter().map(|stored| stored.version).collect();
        let saved: Vec<RuleRow> =
            tx.all(&format!("{SELECT_ANY} WHERE rule_version.id = ANY($1)"), &[&versions]).await?;
        let mut stored: HashMap<Uuid, StoredRule> =
            stored.into_iter().map(|stored| (stored.version, stored)).collect();
        let rule = saved.into_iter().filter_map(|saved| {
            let stored = stored.remove(&saved.version.uuid())?;
            let rule = Rule { enabled: true, params: stored.params, ..saved.rule };
            Some(CompiledRule::new(rule, stored.slot, saved.version))
        });
        Ok(Self::new(rule.collect()))
    }

    fn of_saved(saved: Vec<RuleRow>) -> Result<Self> {
        Ok(Self::new(saved.into_iter().map(RuleRow::rule).collect::<Result<_>>()?))
    }
}

/// Returns the organization's rules. First writes builtin rules that are missing or have an older version.
async fn load_updated(tx: &Tx, now: DateTime<Utc>) -> Result<Vec<RuleRow>> {
    let saved = RuleRow::all(tx).await?;
    if stale(&saved).is_empty() {
        return Ok(saved);
    }
    lock(tx).await?;
    // Another transaction may have written the builtin rules before this one acquired the lock.
    let saved = RuleRow::all(tx).await?;
    let stale = stale(&saved);
    if stale.is_empty() {
        return Ok(saved);
    }
    write(tx, &saved, &stale, now).await?;
    // An organization that had no rules has no postures to re-evaluate.
    if !saved.is_empty() {
        stale::mark(tx, &[(Subject::All, None)]).await?;
    }
    RuleRow::all(tx).await
}

/// Locks the organization's rules for writing until the transaction ends.
async fn lock(tx: &Tx) -> Result<()> {
    let lock = "SELECT pg_advisory_xact_lock(hashtextextended('rule ' || $1::uuid, 0))";
    tx.exec(lock, &[&tx.org()]).await?;
    Ok(())
}

/// Returns the builtin rules that are missing from `saved` or have an older version there. If the organization has its
/// own rule under the key of a builtin rule, its own rule stays.
fn stale(saved: &[RuleRow]) -> Vec<&'static Builtin> {
    let rules: HashMap<&str, &Rule> =
        saved.iter().map(|saved| (saved.rule.key.as_str(), &saved.rule)).collect();
    let is_stale = |builtin: &&Builtin| {
        rules
            .get(builtin.key.as_str())
            .is_none_or(|rule| rule.builtin && rule.version < builtin.version)
    };
    Builtin::all().iter().filter(is_stale).collect()
}

/// Writes these builtin rules and their versions.
async fn write(
    tx: &Tx,
    saved: &[RuleRow],
    builtins: &[&'static Builtin],
    now: DateTime<Utc>,
) -> Result<()> {
    let mut next_slot = next_free_slot(saved);
    let (mut rules, mut versions) = (Vec::new(), Vec::new());
    for builtin in builtins {
        let known = saved.iter().find(|saved| saved.rule.id == builtin.id(tx.org()));
        let slot = known.map_or_else(
            || {
                next_slot += 1;
                next_slot - 1
            },
            |known| known.slot,
        );
        let overrides = known.map(|known| builtin.params.matching_overrides(&known.overrides));
        rules.push((builtin, slot, overrides.unwrap_or_else(|| serde_json::json!({}))));
        versions.push(Version {
            rule: builtin.id(tx.org()),
            number: builtin.version,
            definition: &builtin.definition,
        });
    }
    tx.exec(
        "INSERT INTO rule (org_id, id, key, slot, builtin, enabled, version, params, created_at, updated_at)
         SELECT $1, id, key, slot, true, true, version, params, $2, $2
         FROM UNNEST($3::uuid[], $4::text[], $5::smallint[], $6::integer[], $7::jsonb[])
              AS new (id, key, slot, version, params)
         ON CONFLICT (org_id, id) DO UPDATE
         SET version = excluded.version, params = excluded.params, updated_at = excluded.updated_at",
        &[
            &tx.org(),
            &now,
            &rules.iter().map(|(builtin, ..)| builtin.id(tx.org())).collect::<Vec<_>>(),
            &rules.iter().map(|(builtin, ..)| builtin.key.as_str()).collect::<Vec<_>>(),
            &rules.iter().map(|(_, slot, _)| *slot).collect::<Vec<_>>(),
            &rules.iter().map(|(builtin, ..)| builtin.version).collect::<Vec<_>>(),
            &rules.iter().map(|(.., overrides)| overrides).collect::<Vec<_>>(),
        ],
    )
    .await?;
    Version::insert(tx, &versions, now).await?;
    // The audit trail records the new version, and the overrides that were dropped because they no longer fit.
    let updated = saved.iter().filter_map(|saved| {
        builtins.iter().find(|builtin| builtin.id(tx.org()) == saved.rule.id)?;
        let (before, after) = (saved.rule.snapshot(), saved.clone().updated().snapshot());
        let entry = Entry::changed("rule.updated", saved.rule.id, before, after);
        Some(entry.by(Actor::System))
    });
    Entry::record_all(tx, updated.collect()).await
}

/// Returns the lowest slot above all used ones. Rules are never deleted, so no slot is reused.
fn next_free_slot(saved: &[RuleRow]) -> i16 {
    saved.iter().map(|saved| saved.slot + 1).max().unwrap_or(0)
}

/// A rule version to write.
struct Version<'a> {
    rule: RuleId,
    number: i32,
    definition: &'a Definition,
}

impl Version<'_> {
    async fn insert(tx: &Tx, versions: &[Self], now: DateTime<Utc>) -> Result<()> {
        let texts = |of: fn(&Definition) -> &str| -> Vec<&str> {
            versions.iter().map(|version| of(version.definition)).collect()
        };
        let json = |of: fn(&Definition) -> Value| -> Vec<Value> {
            versions.iter().map(|version| of(version.definition)).collect()
        };
        tx.exec(
            "INSERT INTO rule_version (org_id, id, rule_id, version, title, severity, controls, applies_to, params,
                                       condition, evidence, remediation, created_at)
             SELECT $1, new.*, $2
             FROM UNNEST($3::uuid[], $4::uuid[], $5::integer[], $6::text[], $7::text[], $8::jsonb[], $9::jsonb[],
                         $10::jsonb[], $11::text[], $12::jsonb[], $13::text[]) AS new",
            &[
                &tx.org(),
                &now,
                &versions.iter().map(|_| RuleVersionId::new()).collect::<Vec<_>>(),
                &versions.iter().map(|version| version.rule).collect::<Vec<_>>(),
                &versions.iter().map(|version| version.number).collect::<Vec<_>>(),
                &texts(|definition| &definition.title),
                &texts(|definition| definition.severity.as_str()),
                &json(|definition| serde_json::json!(definition.controls)),
                &json(|definition| serde_json::json!(definition.applies_to)),
                &json(|definition| definition.params.clone()),
                &texts(|definition| &definition.condition),
                &json(|definition| serde_json::json!(definition.evidence)),
                &texts(|definition| &definition.remediation),
            ],
        )
        .await?;
        Ok(())
    }
}

impl Rule {
    /// Lists the organization's rules, including builtin rules that are not saved yet: builtin rules in the order of
    /// [`Builtin::all`], then its own rules by key.
    pub async fn list(tx: &Tx) -> Result<Vec<Self>> {
        let mut saved: HashMap<String, RuleRow> = RuleRow::all(tx)
            .await?
            .into_iter()
            .map(|saved| (saved.rule.key.clone(), saved))
            .collect();
        let mut rules = Vec::new();
        for builtin in Builtin::all() {
            match saved.get(&builtin.key) {
                None => rules.push(builtin.rule(tx.org())),
                Some(known) if known.rule.builtin => {
                    rules.extend(saved.remove(&builtin.key).map(RuleRow::updated));
                }
                // Listed below with the organization's own rules.
                Some(_) => {}
            }
        }
        let mut own: Vec<Self> = saved.into_values().map(|saved| saved.rule).collect();
        own.sort_by(|left, right| (right.builtin, &left.key).cmp(&(left.builtin, &right.key)));
        rules.extend(own);
        Ok(rules)
    }

    /// Returns the rule with this id, or `None`.
    pub async fn find(tx: &Tx, id: RuleId) -> Result<Option<Self>> {
        let saved: Option<RuleRow> =
            tx.opt(&format!("{SELECT} WHERE rule.id = $1"), &[&id]).await?;
        if let Some(saved) = saved {
            return Ok(Some(saved.updated()));
        }
        match Builtin::all().iter().find(|builtin| builtin.id(tx.org()) == id) {
            // The organization may have its own rule under this key.
            Some(builtin) => {
                let rule = Self::find_by_key(tx, &builtin.key).await?;
                Ok(rule.filter(|rule| rule.id == id))
            }
            None => Ok(None),
        }
    }

    /// Returns the rule with this key, or `None`.
    pub async fn find_by_key(tx: &Tx, key: &str) -> Result<Option<Self>> {
        let saved = RuleRow::find(tx, key).await?;
        let shipped = || Builtin::of_key(key).map(|builtin| builtin.rule(tx.org()));
        Ok(saved.map(RuleRow::updated).or_else(shipped))
    }
}
