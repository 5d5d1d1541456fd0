//! A rule as a user submits it. The complete input is validated before the rule is tried or saved.

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

/// Maximum number of controls per rule.
const MAX_CONTROLS: usize = 20;
/// Maximum number of tags in a rule's scope.
const MAX_TAGS: usize = 20;
/// Limits of a framework's name and of a control's code.
const CODE: text::TextLimits = text::TextLimits { max: 64, multiline: false };

/// Rule to save or to test (dry run).
#[derive(Debug, Clone, InputObject)]
pub struct RuleInput {
    /// Key of the rule: 1 to 63 characters of a-z, 0-9 and -, not starting with -. If a rule with this key exists,
    /// saving creates a new version of that rule.
    pub key: String,
    /// Requirement that the asset must meet, in one line of up to 255 characters.
    pub title: String,
    /// Severity of a failure of the rule. It determines the rule's weight in scores: `LOW` 1, `MEDIUM` 2, `HIGH` 5,
    /// `CRITICAL` 10.
    pub severity: Severity,
    /// Framework controls that the rule checks, up to 20.
    #[graphql(default)]
    pub controls: Vec<ControlInput>,
    /// Assets to which the rule applies; default all assets.
    pub applies_to: Option<RuleScopeInput>,
    /// Parameters: an object that maps each name to its default value. Expressions read a parameter as `params.<name>`.
    /// A default is true or false, a number, a string, or a list of whole numbers or of strings. The default determines
    /// the parameter's type.
    pub params: Option<Value>,
    /// CEL expression that is true if the asset passes. It can read `attr.<attribute>`, `asset.<field>`,
    /// `owner.<field>`, `params.<name>` and `now`.
    pub condition: String,
    /// Evidence expressions: an object that maps each name to its CEL expression, up to 16 entries. Their values are
    /// shown next to a verdict.
    pub evidence: Option<Value>,
    /// Instructions for fixing a failure, up to 4,096 characters.
    pub remediation: String,
}

/// Reference to one control of a framework.
#[derive(Debug, Clone, InputObject)]
pub struct ControlInput {
    /// Name of the framework, e.g. `NIST` for NIST SP 800-53, or `CIS`.
    pub framework: String,
    /// The control's code in the framework, e.g. `SC-28`.
    pub code: String,
}

/// Assets to which a rule applies: those that match all three lists. An empty list matches every asset.
#[derive(Debug, Clone, Default, InputObject)]
pub struct RuleScopeInput {
    /// Asset types to which the rule applies.
    #[graphql(default)]
    pub types: Vec<AssetType>,
    /// Environments to which the rule applies.
    #[graphql(default)]
    pub environments: Vec<Environment>,
    /// Names of tags, up to 20; the asset must have at least one of these tags.
    #[graphql(default)]
    pub tags: Vec<String>,
}

/// Validated input with compiled expressions.
pub(super) struct Draft {
    pub(super) definition: Definition,
    pub(super) compiled: Compiled,
}

impl RuleInput {
    /// Validates the complete input and compiles its expressions.
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
        for (index, control) in self.controls.iter().enumerate() {
            let mut part = |name: &str, given: &str| {
                text::check(&format!("controls.{index}.{name}"), given, CODE, faults)
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
                .map(|(index, name)| {
                    tag::check_name(&format!("appliesTo.tags.{index}"), name, faults)
                })
                .collect(),
        }
    }

    fn evidence(&self, faults: &mut Vec<FieldError>) -> BTreeMap<String, String> {
        let object = match &self.evidence {
            None | Some(Value::Null) => return BTreeMap::new(),
            Some(Value::Object(object)) => object,
            Some(_) => {
                let message = "must be an object from name to CEL expression, such as {\"os_name\": \"attr.os_name\"}";
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
                    "is not a valid name: use 1 to 63 of a-z, 0-9 and _, not starting with a digit",
                )),
                Value::String(source) => {
                    evidence.insert(name.clone(), source.trim().to_owned());
                }
                _ => faults.push(FieldError::new(
                    path,
                    "must be a string with a CEL expression, such as \"attr.os_name\"",
                )),
            }
        }
        evidence
    }
}

fn is_key(key: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&key.len()) && key.bytes().all(plain) && !key.starts_with('-')
}
