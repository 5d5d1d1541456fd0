//! What people write of rules: their own ones, and the thresholds of all.

use std::collections::BTreeMap;

use async_graphql::InputObject;
use chrono::{DateTime, SubsecRound, Utc};
use serde_json::{Value, json};

use super::{Saved, Version, ensured, free_slot, lock};
use crate::{
    asset::{AssetType, Environment},
    audit::Entry,
    db::Tx,
    error::{Error, Fault, Result},
    event::Event,
    id::Id,
    nearest::nearest,
    posture::due::{self, Whose},
    rule::{
        AppliesTo, Compiled, ControlRef, Definition, Params, Rule, Severity, compile,
        params::is_name,
    },
    tag,
    text::{self, beginning},
};

/// Rules of its own that an organization may have.
const MOST: usize = 128;
/// Requirements that one rule may name.
const CONTROLS: usize = 20;
/// Tags that one rule may be about.
const TAGS: usize = 20;
/// The name of a framework, or the code of a requirement.
const CODE: text::Rule = text::Rule { max: 64, multiline: false };

/// A rule to save, or to try.
#[derive(Debug, Clone, InputObject)]
pub struct RuleInput {
    /// What it is called by: 1 to 63 of a-z, 0-9 and -, not starting with -. A key that is known makes a new version of that
    /// rule.
    pub key: String,
    /// A line that says what must be so, up to 255 characters.
    pub title: String,
    /// How bad it is when it is not.
    pub severity: Severity,
    /// The requirements that it checks, up to 20.
    #[graphql(default)]
    pub controls: Vec<ControlInput>,
    /// Which assets it is about; all of them without it.
    pub applies_to: Option<RuleScopeInput>,
    /// Its thresholds: an object of defaults, read as `params.<name>`. A default is true or false, a number, a text, or a list
    /// of whole numbers or of texts, and says the type.
    pub params: Option<Value>,
    /// What must be so, in CEL: true where an asset passes. It reads attr, asset, owner, params and now.
    pub condition: String,
    /// What to show beside a verdict: an object of CEL by name.
    pub evidence: Option<Value>,
    /// What to do where it is broken, up to 4096 characters.
    pub remediation: String,
}

/// One requirement of a framework.
#[derive(Debug, Clone, InputObject)]
pub struct ControlInput {
    /// The framework: NIST (SP 800-53), CIS, or any other name.
    pub framework: String,
    /// The requirement's code in it, e.g. `SC-28`.
    pub code: String,
}

/// Which assets a rule is about; an empty list means any.
#[derive(Debug, Clone, Default, InputObject)]
pub struct RuleScopeInput {
    /// Of one of these types.
    #[graphql(default)]
    pub types: Vec<AssetType>,
    /// In one of these environments.
    #[graphql(default)]
    pub environments: Vec<Environment>,
    /// With one of these tags, by name.
    #[graphql(default)]
    pub tags: Vec<String>,
}

/// An input that was found to be in order.
pub(in crate::rule) struct Draft {
    pub(in crate::rule) definition: Definition,
    pub(in crate::rule) compiled: Compiled,
}

impl RuleInput {
    /// What it says, checked whole.
    pub(in crate::rule) fn check(&self) -> Result<Draft> {
        let mut faults = Vec::new();
        if !is_key(&self.key) {
            let message = "must be 1 to 63 of a-z, 0-9 and -, not starting with -";
            faults.push(Fault::new("key", message));
        }
        let mut definition = Definition {
            title: text::check("title", &self.title, text::NAME, &mut faults),
            severity: self.severity,
            controls: self.controls(&mut faults),
            applies_to: self.applies_to(&mut faults),
            params: self.params.clone().unwrap_or_else(|| json!({})),
            condition: self.condition.trim().to_owned(),
            evidence: self.evidence(&mut faults),
            remediation: text::check(
                "remediation",
                &self.remediation,
                text::DESCRIPTION,
                &mut faults,
            ),
        };
        let (params, wrong) = Params::read(&definition.params);
        faults.extend(wrong);
        definition.params = params.to_value();
        match compile(&definition, &params) {
            Ok(compiled) if faults.is_empty() => Ok(Draft { definition, compiled }),
            Ok(_) => Err(Error::Invalid(faults)),
            Err(more) => {
                faults.extend(more);
                Err(Error::Invalid(faults))
            }
        }
    }

    fn controls(&self, faults: &mut Vec<Fault>) -> Vec<ControlRef> {
        if self.controls.len() > CONTROLS {
            let message =
                format!("has {} controls, at most {CONTROLS} are allowed", self.controls.len());
            faults.push(Fault::new("controls", message));
            return Vec::new();
        }
        let mut controls = Vec::new();
        for (place, control) in self.controls.iter().enumerate() {
            let mut part = |name: &str, given: &str| {
                text::check(&format!("controls.{place}.{name}"), given, CODE, faults)
            };
            let framework = part("framework", &control.framework);
            let control = ControlRef { framework, code: part("code", &control.code) };
            if !controls.contains(&control) {
                controls.push(control);
            }
        }
        controls
    }

    fn applies_to(&self, faults: &mut Vec<Fault>) -> AppliesTo {
        fn once<T: Copy + Ord>(items: &[T]) -> Vec<T> {
            let mut items = items.to_vec();
            items.sort_unstable();
            items.dedup();
            items
        }
        let Some(scope) = &self.applies_to else { return AppliesTo::default() };
        if scope.tags.len() > TAGS {
            let message = format!("has {} tags, at most {TAGS} are allowed", scope.tags.len());
            faults.push(Fault::new("appliesTo.tags", message));
            return AppliesTo::default();
        }
        let tags = scope.tags.iter().enumerate();
        AppliesTo {
            types: once(&scope.types),
            environments: once(&scope.environments),
            tags: tags
                .map(|(place, name)| {
                    tag::check_name(&format!("appliesTo.tags.{place}"), name, faults)
                })
                .collect(),
        }
    }

    fn evidence(&self, faults: &mut Vec<Fault>) -> BTreeMap<String, String> {
        let object = match &self.evidence {
            None | Some(Value::Null) => return BTreeMap::new(),
            Some(Value::Object(object)) => object,
            Some(_) => {
                let message =
                    "must be an object of CEL by name, such as {\"os_name\": \"attr.os_name\"}";
                faults.push(Fault::new("evidence", message));
                return BTreeMap::new();
            }
        };
        let mut evidence = BTreeMap::new();
        for (name, source) in object {
            let path = format!("evidence.{}", beginning(name));
            match source {
                _ if !is_name(name) => faults.push(Fault::new(
                    path,
                    "is no name: one has 1 to 63 of a-z, 0-9 and _, and does not start with a digit",
                )),
                Value::String(source) => {
                    evidence.insert(name.clone(), source.trim().to_owned());
                }
                _ => faults.push(Fault::new(path, "must be a text in CEL, such as \"attr.os_name\"")),
            }
        }
        evidence
    }
}

fn is_key(key: &str) -> bool {
    let plain =
        |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'-';
    (1..=63).contains(&key.len()) && key.bytes().all(plain) && !key.starts_with('-')
}

impl Rule {
    /// Saves a rule of the organization's own, by its key: a new version where it says something else, and nothing where it
    /// says the same. What was set of its thresholds stays as far as it fits.
    ///
    /// # Errors
    /// `Invalid` with all that is wrong with it, and for a key that ships; `Conflict` where there are too many.
    pub async fn save(tx: &Tx, input: &RuleInput, now: DateTime<Utc>) -> Result<Self> {
        let draft = input.check();
        if Self::find_by_key(tx, &input.key).await?.is_some_and(|rule| rule.builtin) {
            let message = format!(
                "{} is built in and stays as it is: set its thresholds by setRuleParams, or save a copy under another key and switch this one off",
                input.key
            );
            let mut faults = vec![Fault::new("key", message)];
            if let Err(Error::Invalid(more)) = draft {
                faults.extend(more);
            }
            return Err(Error::Invalid(faults));
        }
        let definition = draft?.definition;
        let now = now.trunc_subsecs(6); // As Postgres keeps it.
        lock(tx).await?;
        let saved = ensured(tx, now).await?;
        let Some(before) = saved.iter().find(|saved| saved.rule.key == input.key) else {
            return Self::add(tx, &input.key, definition, &saved, now).await;
        };
        if before.rule.definition == definition {
            return Ok(before.rule.clone());
        }
        let declared = Params::declared(&definition.params).map_err(Error::Invalid)?;
        let overrides = declared.fitting(&before.overrides);
        let params = declared.with(&overrides).map_err(Error::Invalid)?;
        compile(&definition, &params).map_err(Error::Invalid)?;
        let rule = Self {
            version: before.rule.version + 1,
            definition,
            params: params.to_value(),
            ..before.rule.clone()
        };
        let version = Version { rule: rule.id, number: rule.version, says: &rule.definition };
        Version::insert(tx, &[version], now).await?;
        tx.exec(
            "UPDATE rule SET version = $2, params = $3, updated_at = $4 WHERE id = $1",
            &[&rule.id, &rule.version, &overrides, &now],
        )
        .await?;
        let entry =
            Entry::changed("rule.updated", rule.id, before.rule.snapshot(), rule.snapshot());
        rule.changed(tx, entry, now).await?;
        Ok(rule)
    }

    async fn add(
        tx: &Tx,
        key: &str,
        definition: Definition,
        saved: &[Saved],
        now: DateTime<Utc>,
    ) -> Result<Self> {
        if saved.iter().filter(|saved| !saved.rule.builtin).count() >= MOST {
            return Err(Error::Conflict(format!(
                "the organization has {MOST} rules of its own, which is the most: change one that is not needed any more"
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
        tx.exec(
            "INSERT INTO rule (org_id, id, key, slot, builtin, enabled, version, params, created_at, updated_at)
             VALUES ($1, $2, $3, $4, false, true, 1, '{}', $5, $5)",
            &[&tx.org(), &rule.id, &rule.key, &free_slot(saved), &now],
        )
        .await?;
        let version = Version { rule: rule.id, number: 1, says: &rule.definition };
        Version::insert(tx, &[version], now).await?;
        let entry = Entry::created("rule.created", rule.id, &rule.snapshot());
        rule.changed(tx, entry, now).await?;
        Ok(rule)
    }

    /// Sets thresholds of a rule, and whether assets are judged by it. Thresholds merge by name; `null` goes back to the default.
    ///
    /// # Errors
    /// `Invalid` with all that is wrong with the thresholds, or for a key that no rule has.
    pub async fn set_params(
        tx: &Tx,
        key: &str,
        params: Option<&Value>,
        enabled: Option<bool>,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let now = now.trunc_subsecs(6); // As Postgres keeps it.
        lock(tx).await?;
        let saved = ensured(tx, now).await?;
        let Some(before) = saved.iter().find(|saved| saved.rule.key == key) else {
            let known = saved.iter().map(|saved| saved.rule.key.as_str());
            return Err(Error::Invalid(vec![Fault {
                suggestion: nearest(key, known).map(str::to_owned),
                ..Fault::new("key", format!("there is no rule {:?}", beginning(key)))
            }]));
        };
        let overrides = merged(&before.overrides, params)?;
        let definition = &before.rule.definition;
        let declared = Params::declared(&definition.params).map_err(Error::Invalid)?;
        let effective = declared.with(&overrides).map_err(|mut faults| {
            // What is wrong with those that fit is said, too.
            let fitting = declared.with(&declared.fitting(&overrides));
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
        tx.exec(
            "UPDATE rule SET params = $2, enabled = $3, updated_at = $4 WHERE id = $1",
            &[&rule.id, &overrides, &rule.enabled, &now],
        )
        .await?;
        let entry =
            Entry::changed("rule.updated", rule.id, before.rule.snapshot(), rule.snapshot());
        rule.changed(tx, entry, now).await?;
        Ok(rule)
    }

    /// Records the change, and has judged anew what it concerns.
    async fn changed(&self, tx: &Tx, entry: Entry, now: DateTime<Utc>) -> Result<()> {
        entry.record(tx, now).await?;
        due::note(tx, &[(Whose::All, None)]).await?;
        tx.emit(Event::changed(tx.org(), self.id));
        Ok(())
    }

    /// As the audit trail keeps it.
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

/// What is set after these changes by name, where `null` removes.
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
