//! Writes that users request: an organization's own rules, and the parameters of all rules.
//!
//! A change of rules waits for no evaluation: it does not acquire the posture lock. An evaluation that is under way
//! ends with the rules that it began with. The change marks all assets as stale, and the re-evaluation of that mark
//! does acquire the lock exclusively. It therefore begins after the last evaluation with the old rules, and has the
//! last word.

use chrono::{DateTime, SubsecRound, Utc};
use serde_json::{Value, json};

use super::{RuleRow, Version, budget, effective, load_updated, lock, next_free_slot};
use crate::{
    access::audit::Entry,
    base::{
        db::Tx,
        error::{Error, FieldError, Result},
        event::Event,
        id::Id,
        nearest::nearest,
        stale::{self, Subject},
        text::beginning,
    },
    compliance::rule::{Definition, Params, Rule, RuleInput, Trial, compile, draft::Draft},
};

/// Maximum number of an organization's own rules.
const MAX_RULES: usize = 128;

impl Rule {
    /// Saves one of the organization's own rules under its key. Changed content creates a new version; equal content
    /// changes nothing. Parameters that the organization set are kept if they match the new type.
    ///
    /// # Errors
    /// `Invalid` with all errors in the input, for the key of a builtin rule, and for a rule that ends with an error on
    /// every asset of a sample, or that would exceed the budget. `Conflict` if the organization has too many rules.
    pub async fn save(tx: &Tx, input: &RuleInput, now: DateTime<Utc>) -> Result<Self> {
        let draft = input.check();
        let before: Option<RuleRow> = RuleRow::find(tx, &input.key).await?;
        if Self::find_by_key(tx, &input.key).await?.is_some_and(|rule| rule.builtin) {
            let message = format!(
                "{} is a builtin rule and cannot be changed: set its parameters with setRuleParams, or save a copy under another key and disable this rule",
                input.key
            );
            let mut faults = vec![FieldError::new("key", message)];
            if let Err(Error::Invalid(more)) = draft {
                faults.extend(more);
            }
            return Err(Error::Invalid(faults));
        }
        let definition = draft?.definition;
        let now = now.trunc_subsecs(6); // Postgres stores microseconds.
        // The sample is evaluated before the lock, which others wait for.
        if before.as_ref().is_none_or(|before| before.rule.definition != definition) {
            let (_, draft) = with_overrides(definition.clone(), before.as_ref())?;
            Trial::reject_if_never_evaluable(tx, draft, now).await?;
        }
        lock(tx).await?;
        let saved = load_updated(tx, now).await?;
        let Some(before) = saved.iter().find(|saved| saved.rule.key == input.key) else {
            return Self::add(tx, &input.key, definition, saved, now).await;
        };
        if before.rule.definition == definition {
            return Ok(before.rule.clone());
        }
        let (overrides, draft) = with_overrides(definition, Some(before))?;
        let rule = Self {
            version: before.rule.version + 1,
            params: effective(&draft.definition.params, &overrides),
            definition: draft.definition,
            ..before.rule.clone()
        };
        budget::check(&saved, &rule, "condition")?;
        let version = Version { rule: rule.id, number: rule.version, definition: &rule.definition };
        Version::insert(tx, &[version], now).await?;
        tx.exec(
            "UPDATE rule SET version = $2, params = $3, updated_at = $4 WHERE id = $1",
            &[&rule.id, &rule.version, &overrides, &now],
        )
        .await?;
        let entry =
            Entry::changed("rule.updated", rule.id, before.rule.snapshot(), rule.snapshot());
        rule.changed(tx, entry).await?;
        Ok(rule)
    }

    async fn add(
        tx: &Tx,
        key: &str,
        definition: Definition,
        saved: Vec<RuleRow>,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        if saved.iter().filter(|saved| !saved.rule.builtin).count() >= MAX_RULES {
            return Err(Error::Conflict(format!(
                "the organization has {MAX_RULES} rules of its own, which is the maximum: change one that is no longer needed"
            )));
        }
        let rule = Self {
            id: Id::new(),
            key: key.to_owned(),
            version: 1,
            builtin: false,
            enabled: true,
            params: definition.params.clone(),
            definition,
        };
        budget::check(&saved, &rule, "condition")?;
        tx.exec(
            "INSERT INTO rule (org_id, id, key, slot, builtin, enabled, version, params, created_at, updated_at)
             VALUES ($1, $2, $3, $4, false, true, 1, '{}', $5, $5)",
            &[&tx.org(), &rule.id, &rule.key, &next_free_slot(&saved), &now],
        )
        .await?;
        let version = Version { rule: rule.id, number: 1, definition: &rule.definition };
        Version::insert(tx, &[version], now).await?;
        let entry = Entry::created("rule.created", rule.id, &rule.snapshot());
        rule.changed(tx, entry).await?;
        Ok(rule)
    }

    /// Sets parameters of a rule, and enables or disables the rule. Parameters are merged by name; `null` restores the
    /// default.
    ///
    /// # Errors
    /// `Invalid` with all errors in the parameters, if no rule has the key, or if the rule would exceed the budget.
    pub async fn set_params(
        tx: &Tx,
        key: &str,
        params: Option<&Value>,
        enabled: Option<bool>,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let now = now.trunc_subsecs(6); // Postgres stores microseconds.
        lock(tx).await?;
        let saved = load_updated(tx, now).await?;
        let Some(before) = saved.iter().find(|saved| saved.rule.key == key) else {
            let known = saved.iter().map(|saved| saved.rule.key.as_str());
            return Err(Error::Invalid(vec![FieldError {
                suggestion: nearest(key, known).map(str::to_owned),
                ..FieldError::new("key", format!("there is no rule {:?}", beginning(key)))
            }]));
        };
        let overrides = merged(&before.overrides, params)?;
        let definition = &before.rule.definition;
        let declared = Params::declared(&definition.params).map_err(Error::Invalid)?;
        let effective = declared.with(&overrides).map_err(|mut faults| {
            // Also report the errors that the valid parameters cause in the expressions.
            let fitting = declared.with(&declared.matching_overrides(&overrides));
            let compiled = fitting.and_then(|fitting| compile(definition, &fitting));
            faults.extend(compiled.err().into_iter().flatten());
            Error::Invalid(faults)
        })?;
        compile(definition, &effective).map_err(Error::Invalid)?;
        let rule = Self {
            enabled: enabled.unwrap_or(before.rule.enabled),
            params: effective.to_value(),
            ..before.rule.clone()
        };
        if overrides == before.overrides && rule.enabled == before.rule.enabled {
            return Ok(rule);
        }
        budget::check(&saved, &rule, if enabled.is_some() { "enabled" } else { "params" })?;
        tx.exec(
            "UPDATE rule SET params = $2, enabled = $3, updated_at = $4 WHERE id = $1",
            &[&rule.id, &overrides, &rule.enabled, &now],
        )
        .await?;
        let entry =
            Entry::changed("rule.updated", rule.id, before.rule.snapshot(), rule.snapshot());
        rule.changed(tx, entry).await?;
        Ok(rule)
    }

    /// Records the change in the audit trail and marks all assets for re-evaluation.
    async fn changed(&self, tx: &Tx, entry: Entry) -> Result<()> {
        entry.record(tx).await?;
        stale::mark(tx, &[(Subject::All, None)]).await?;
        tx.emit(Event::changed(tx.org(), self.id));
        Ok(())
    }

    /// Returns the rule as the audit trail stores it.
    pub(super) fn snapshot(&self) -> Value {
        let Definition {
            title,
            severity,
            controls,
            applies_to,
            params: _,
            condition,
            evidence,
            remediation,
        } = &self.definition;
        json!({
            "key": self.key,
            "version": self.version,
            "enabled": self.enabled,
            "params": self.params,
            "title": title,
            "severity": severity,
            "controls": controls,
            "appliesTo": applies_to,
            "condition": condition,
            "evidence": evidence,
            "remediation": remediation,
        })
    }
}

/// Returns the overrides of the saved rule that fit the new definition, and the definition compiled with them.
fn with_overrides(definition: Definition, before: Option<&RuleRow>) -> Result<(Value, Draft)> {
    let declared = Params::declared(&definition.params).map_err(Error::Invalid)?;
    let overrides =
        before.map_or_else(|| json!({}), |before| declared.matching_overrides(&before.overrides));
    let params = declared.with(&overrides).map_err(Error::Invalid)?;
    let compiled = compile(&definition, &params).map_err(Error::Invalid)?;
    Ok((overrides, Draft { definition, compiled }))
}

/// Returns the overrides merged with the changes; `null` removes an override.
fn merged(overrides: &Value, changes: Option<&Value>) -> Result<Value> {
    let mut merged = overrides.as_object().cloned().unwrap_or_default();
    match changes {
        None | Some(Value::Null) => {}
        Some(Value::Object(changes)) => {
            for (name, value) in changes {
                if value.is_null() {
                    merged.remove(name);
                } else {
                    merged.insert(name.clone(), value.clone());
                }
            }
        }
        Some(_) => {
            let message = "must be an object, such as {\"max_age_days\": 30}";
            return Err(Error::invalid("params", message));
        }
    }
    Ok(Value::Object(merged))
}
