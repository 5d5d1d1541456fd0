//! A rule as people write it, checked whole before it is tried or saved.

use std::collections::BTreeMap;

use async_graphql::InputObject;
use serde_json::{Value, json};

use super::{
    AppliesTo, Compiled, ControlRef, Definition, Params, Severity, compile, params::is_name,
};
use crate::{
    base::{
        error::{Error, FieldError, Result},
        text::{self, beginning},
    },
    inventory::{
        asset::{AssetType, Environment},
        tag,
    },
};

/// Requirements that one rule may name.
const MAX_CONTROLS: usize = 20;
/// Tags that one rule may be about.
const MAX_TAGS: usize = 20;
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
pub(super) struct Draft {
    pub(super) definition: Definition,
    pub(super) compiled: Compiled,
}

impl RuleInput {
    /// What it says, checked whole.
    pub(super) fn check(&self) -> Result<Draft> {
        let mut faults = Vec::new();
        if !is_key(&self.key) {
            let message = "must be 1 to 63 of a-z, 0-9 and -, not starting with -";
            faults.push(FieldError::new("key", message));
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

    fn controls(&self, faults: &mut Vec<FieldError>) -> Vec<ControlRef> {
        if self.controls.len() > MAX_CONTROLS {
            let message =
                format!("has {} controls, at most {MAX_CONTROLS} are allowed", self.controls.len());
            faults.push(FieldError::new("controls", message));
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

    fn applies_to(&self, faults: &mut Vec<FieldError>) -> AppliesTo {
        fn once<T: Copy + Ord>(items: &[T]) -> Vec<T> {
            let mut items = items.to_vec();
            items.sort_unstable();
            items.dedup();
            items
        }
        let Some(scope) = &self.applies_to else { return AppliesTo::default() };
        if scope.tags.len() > MAX_TAGS {
            let message = format!("has {} tags, at most {MAX_TAGS} are allowed", scope.tags.len());
            faults.push(FieldError::new("appliesTo.tags", message));
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

    fn evidence(&self, faults: &mut Vec<FieldError>) -> BTreeMap<String, String> {
        let object = match &self.evidence {
            None | Some(Value::Null) => return BTreeMap::new(),
            Some(Value::Object(object)) => object,
            Some(_) => {
                let message =
                    "must be an object of CEL by name, such as {\"os_name\": \"attr.os_name\"}";
                faults.push(FieldError::new("evidence", message));
                return BTreeMap::new();
            }
        };
        let mut evidence = BTreeMap::new();
        for (name, source) in object {
            let path = format!("evidence.{}", beginning(name));
            match source {
                _ if !is_name(name) => faults.push(FieldError::new(
                    path,
                    "is no name: one has 1 to 63 of a-z, 0-9 and _, and does not start with a digit",
                )),
                Value::String(source) => {
                    evidence.insert(name.clone(), source.trim().to_owned());
                }
                _ => faults.push(FieldError::new(path, "must be a text in CEL, such as \"attr.os_name\"")),
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
