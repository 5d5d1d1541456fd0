//! Rules as an organization keeps them: loading, and writing what ships. (`rule/store/save`: what people write; `rule/store/version`:
//! as they were.)
//!
//! Whoever writes takes one lock of the organization first, so slots and versions are given one after the other.

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

mod save;
mod version;

/// A rule's row with the version that counts.
#[derive(Clone)]
pub(super) struct Saved {
    pub(super) rule: Rule,
    pub(super) slot: i16,
    pub(super) version: RuleVersionId,
    /// What the organization set.
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

/// Of each rule the version that counts.
const SELECT: &str = select!(" AND rule_version.version = rule.version");
/// Of each rule every version.
const SELECT_ANY: &str = select!("");

fn corrupt(column: &'static str) -> Error {
    Error::Corrupt { table: "rule_version", column }
}

impl FromRow for Saved {
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

/// The thresholds that count; what cannot be read any more is shown as it is, and the rule is an error wherever it judges.
fn effective(defaults: &Value, overrides: &Value) -> Value {
    let params = Params::declared(defaults).and_then(|params| params.with(overrides));
    params.map_or_else(|_| overrides.clone(), |params| params.to_value())
}

impl Saved {
    async fn all(tx: &Tx) -> Result<Vec<Self>> {
        tx.all(&format!("{SELECT} ORDER BY rule.slot"), &[]).await
    }

    fn rule(self) -> Result<CompiledRule> {
        let slot = usize::try_from(self.slot)
            .map_err(|_| Error::Corrupt { table: "rule", column: "slot" })?;
        Ok(CompiledRule::new(self.rule, slot, self.version))
    }

    /// As it counts once what ships is saved: an update of ours replaces the version, not what was set.
    fn updated(self) -> Rule {
        match Builtin::of_key(&self.rule.key) {
            Some(builtin) if self.rule.builtin && builtin.version > self.rule.version => {
                let overrides = builtin.params.fitting(&self.overrides);
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
    /// The rules that the organization has saved.
    pub async fn load(tx: &Tx) -> Result<Self> {
        Self::of_saved(Saved::all(tx).await?)
    }

    /// The same, after what ships and is missing there, or is older, has been saved: takes a transaction that writes.
    pub async fn ensure(tx: &Tx, now: DateTime<Utc>) -> Result<Self> {
        Self::of_saved(ensured(tx, now).await?)
    }

    /// Those that a run keeps: [`Self::snapshot`] read back.
    ///
    /// # Errors
    /// `Corrupt` where it is none.
    pub async fn of_run(tx: &Tx, snapshot: &Value) -> Result<Self> {
        #[derive(serde::Deserialize)]
        struct Kept {
            slot: usize,
            version: Uuid,
            params: Value,
        }
        let kept: Vec<Kept> = serde_json::from_value(snapshot.clone())
            .map_err(|_| Error::Corrupt { table: "compliance_run", column: "rules" })?;
        let versions: Vec<Uuid> = kept.iter().map(|kept| kept.version).collect();
        let saved: Vec<Saved> =
            tx.all(&format!("{SELECT_ANY} WHERE rule_version.id = ANY($1)"), &[&versions]).await?;
        let mut kept: HashMap<Uuid, Kept> =
            kept.into_iter().map(|kept| (kept.version, kept)).collect();
        let rule = saved.into_iter().filter_map(|saved| {
            let kept = kept.remove(&saved.version.uuid())?;
            let rule = Rule { enabled: true, params: kept.params, ..saved.rule };
            Some(CompiledRule::new(rule, kept.slot, saved.version))
        });
        Ok(Self::new(rule.collect()))
    }

    fn of_saved(saved: Vec<Saved>) -> Result<Self> {
        Ok(Self::new(saved.into_iter().map(Saved::rule).collect::<Result<_>>()?))
    }
}

/// The organization's rules, with what ships among them.
async fn ensured(tx: &Tx, now: DateTime<Utc>) -> Result<Vec<Saved>> {
    let saved = Saved::all(tx).await?;
    if stale(&saved).is_empty() {
        return Ok(saved);
    }
    lock(tx).await?;
    // Somebody else may have been faster.
    let saved = Saved::all(tx).await?;
    let stale = stale(&saved);
    if stale.is_empty() {
        return Ok(saved);
    }
    write(tx, &saved, &stale, now).await?;
    // An organization without rules has nothing judged yet.
    if !saved.is_empty() {
        stale::mark(tx, &[(Subject::All, None)]).await?;
    }
    Saved::all(tx).await
}

/// Until the transaction ends nobody else writes rules of this organization.
async fn lock(tx: &Tx) -> Result<()> {
    let lock = "SELECT pg_advisory_xact_lock(hashtextextended('rule ' || $1::uuid, 0))";
    tx.exec(lock, &[&tx.org()]).await?;
    Ok(())
}

/// What ships and is missing among these, or newer. A key under which the organization had a rule of its own before it shipped
/// stays with that.
fn stale(saved: &[Saved]) -> Vec<&'static Builtin> {
    let rules: HashMap<&str, &Rule> =
        saved.iter().map(|saved| (saved.rule.key.as_str(), &saved.rule)).collect();
    let is_stale = |builtin: &&Builtin| {
        rules
            .get(builtin.key.as_str())
            .is_none_or(|rule| rule.builtin && rule.version < builtin.version)
    };
    Builtin::all().iter().filter(is_stale).collect()
}

/// Writes these rules and their versions.
async fn write(
    tx: &Tx,
    saved: &[Saved],
    builtins: &[&'static Builtin],
    now: DateTime<Utc>,
) -> Result<()> {
    let mut free = free_slot(saved);
    let (mut rules, mut versions) = (Vec::new(), Vec::new());
    for builtin in builtins {
        let known = saved.iter().find(|saved| saved.rule.id == builtin.id(tx.org()));
        let slot = known.map_or_else(
            || {
                free += 1;
                free - 1
            },
            |known| known.slot,
        );
        let overrides = known.map(|known| builtin.params.fitting(&known.overrides));
        rules.push((builtin, slot, overrides.unwrap_or_else(|| serde_json::json!({}))));
        versions.push(Version {
            rule: builtin.id(tx.org()),
            number: builtin.version,
            says: &builtin.definition,
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
    // What does not fit any more of what was set is gone: who asks why finds it.
    let updated = saved.iter().filter_map(|saved| {
        builtins.iter().find(|builtin| builtin.id(tx.org()) == saved.rule.id)?;
        let (before, after) = (saved.rule.snapshot(), saved.clone().updated().snapshot());
        let entry = Entry::changed("rule.updated", saved.rule.id, before, after);
        Some(entry.by(Actor::System))
    });
    Entry::record_all(tx, updated.collect(), now).await
}

/// The next slot that no rule ever had: rules are never deleted.
fn free_slot(saved: &[Saved]) -> i16 {
    saved.iter().map(|saved| saved.slot + 1).max().unwrap_or(0)
}

/// A version about to be written.
struct Version<'a> {
    rule: RuleId,
    number: i32,
    says: &'a Definition,
}

impl Version<'_> {
    async fn insert(tx: &Tx, versions: &[Self], now: DateTime<Utc>) -> Result<()> {
        let says = |of: fn(&Definition) -> &str| -> Vec<&str> {
            versions.iter().map(|version| of(version.says)).collect()
        };
        let json = |of: fn(&Definition) -> Value| -> Vec<Value> {
            versions.iter().map(|version| of(version.says)).collect()
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
                &says(|says| &says.title),
                &says(|says| says.severity.as_str()),
                &json(|says| serde_json::json!(says.controls)),
                &json(|says| serde_json::json!(says.applies_to)),
                &json(|says| says.params.clone()),
                &says(|says| &says.condition),
                &json(|says| serde_json::json!(says.evidence)),
                &says(|says| &says.remediation),
            ],
        )
        .await?;
        Ok(())
    }
}

impl Rule {
    /// The organization's rules, those that ship and are not saved yet included: built-in ones in their order, then its own by
    /// key.
    pub async fn list(tx: &Tx) -> Result<Vec<Self>> {
        let mut saved: HashMap<String, Saved> = Saved::all(tx)
            .await?
            .into_iter()
            .map(|saved| (saved.rule.key.clone(), saved))
            .collect();
        let mut rules = Vec::new();
        for builtin in Builtin::all() {
            match saved.get(&builtin.key) {
                None => rules.push(builtin.rule(tx.org())),
                Some(known) if known.rule.builtin => {
                    rules.extend(saved.remove(&builtin.key).map(Saved::updated));
                }
                // Listed below, with the organization's own.
                Some(_) => {}
            }
        }
        let mut own: Vec<Self> = saved.into_values().map(|saved| saved.rule).collect();
        own.sort_by(|one, other| (other.builtin, &one.key).cmp(&(one.builtin, &other.key)));
        rules.extend(own);
        Ok(rules)
    }

    /// The rule of this id, or `None`.
    pub async fn find(tx: &Tx, id: RuleId) -> Result<Option<Self>> {
        let saved: Option<Saved> = tx.opt(&format!("{SELECT} WHERE rule.id = $1"), &[&id]).await?;
        if let Some(saved) = saved {
            return Ok(Some(saved.updated()));
        }
        match Builtin::all().iter().find(|builtin| builtin.id(tx.org()) == id) {
            // Its key may be taken by a rule of the organization's own.
            Some(builtin) => {
                let rule = Self::find_by_key(tx, &builtin.key).await?;
                Ok(rule.filter(|rule| rule.id == id))
            }
            None => Ok(None),
        }
    }

    /// The rule that is called by this key, or `None`.
    pub async fn find_by_key(tx: &Tx, key: &str) -> Result<Option<Self>> {
        if key.contains('\0') {
            return Ok(None); // Postgres has no such text, and refuses it as a parameter.
        }
        let saved: Option<Saved> =
            tx.opt(&format!("{SELECT} WHERE rule.key = $1"), &[&key]).await?;
        let shipped = || Builtin::of_key(key).map(|builtin| builtin.rule(tx.org()));
        Ok(saved.map(Saved::updated).or_else(shipped))
    }
}
