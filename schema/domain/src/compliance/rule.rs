//! A rule: a machine-checkable condition on an asset, stored as data.
//!
//! | file | what lives there |
//! |---|---|
//! | `rule/builtin` | the sixteen rules that ship with SentryOps |
//! | `rule/draft` | a rule as a user submits it, and its validation |
//! | `rule/cel` | the subset of CEL (Common Expression Language): type check, cost limit and compilation |
//! | `rule/facts`, `rule/key`, `rule/kind` | the facts of an asset that a rule can read, and their types |
//! | `rule/env` | the functions that conditions can call |
//! | `rule/program` | a compiled expression and its evaluation |
//! | `rule/hash` | the hash of the facts that a rule reads |
//! | `rule/evaluate` | a rule's verdict, and its next flip: a change without a change of facts |
//! | `rule/params` | a rule's parameters (thresholds) |
//! | `rule/set` | all rules of an organization, by slot (the index of a rule's verdict in a posture) |
//! | `rule/store` | SQL for rules |
//! | `rule/trial` | the verdicts that an unsaved rule would give |
//! | `rule/control` | titles and families of framework controls |
//!
//! A saved version of a rule never changes, so the rules of past runs stay readable. Builtin rules are stored as rows,
//! like other rules. The rows are written when an organization first evaluates its assets, and again after an update of
//! SentryOps. Until then, builtin rules are read from the binary.

use async_graphql::{Enum, SimpleObject};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    access::{directive::requires, permission::Permission},
    base::{entity::RuleId, text::text_enum},
    inventory::asset::{AssetType, Environment},
};

mod builtin;
mod cel;
mod control;
mod draft;
mod env;
mod evaluate;
mod facts;
mod hash;
mod key;
mod kind;
mod params;
mod program;
mod set;
mod store;
mod trial;

pub use self::cel::{Compiled, compile};
pub use builtin::Builtin;
pub use control::Control;
pub use draft::{ControlInput, RuleInput, RuleScopeInput};
pub use facts::{Facts, FactsRow, Owner};
pub use key::FactKey;
pub use kind::{Kind, Type};
pub use params::Params;
pub use set::{CompiledRule, Ruleset};
pub use trial::{Example, Trial};

text_enum! {
    /// Severity of a failure of a rule. It determines the rule's weight in scores.
    Severity in "rule_version"."severity" {
        /// Fix when convenient; weight 1 in scores.
        Low = "LOW",
        /// Plan a date for the fix; weight 2 in scores.
        Medium = "MEDIUM",
        /// Fix before other work; weight 5 in scores.
        High = "HIGH",
        /// Fix immediately, at any hour; weight 10 in scores.
        Critical = "CRITICAL",
    }
}

impl Severity {
    /// Returns the severity's weight in a score.
    pub const fn weight(self) -> i32 {
        match self {
            Self::Low => 1,
            Self::Medium => 2,
            Self::High => 5,
            Self::Critical => 10,
        }
    }
}

/// Verdict: the result of evaluating one rule on one asset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Enum, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Verdict {
    /// The asset meets the rule's condition.
    Pass,
    /// The asset does not meet the rule's condition, whether or not a waiver covers the failure.
    Fail,
    /// A fact that the rule's condition needs is missing. Counts neither as passed nor as failed.
    NotAssessed,
    /// The rule's condition could not be evaluated. Counts neither as passed nor as failed.
    Error,
}

/// Reference to one control of a framework, e.g. `NIST` `SC-28`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ControlRef {
    /// Name of the framework: `NIST` (SP 800-53), `CIS` or any other.
    pub framework: String,
    /// The control's code in the framework.
    pub code: String,
}

/// Assets to which a rule applies: those that match all three lists. An empty list matches every asset. Requires
/// `COMPLIANCE_READ`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, SimpleObject)]
#[serde(default, deny_unknown_fields)]
#[graphql(name = "RuleScope", directive = requires::apply(Permission::ComplianceRead))]
pub struct AppliesTo {
    /// Asset types to which the rule applies.
    pub types: Vec<AssetType>,
    /// Environments to which the rule applies.
    pub environments: Vec<Environment>,
    /// Names of tags; the asset must have at least one of these tags.
    pub tags: Vec<String>,
}

/// A rule in its current version, with the parameters that the organization set.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// The rule's id, the same for all its versions.
    pub id: RuleId,
    /// The rule's key, e.g. `disk-encryption`; unique in the organization.
    pub key: String,
    /// Number of the current version, from 1.
    pub version: i32,
    /// True for a rule that ships with SentryOps.
    pub builtin: bool,
    /// True if assets are evaluated against the rule.
    pub enabled: bool,
    /// Content of the current version.
    pub definition: Definition,
    /// The effective parameters: the defaults, overridden by the values that the organization set.
    pub params: serde_json::Value,
}

/// Marker type for ids of rule versions.
#[derive(Debug, Clone, Copy)]
pub struct RuleVersion;

/// Content of a rule version. Also the format of the builtin rule files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// Requirement that the asset must meet, in one line.
    pub title: String,
    /// Severity of a failure of the rule.
    pub severity: Severity,
    /// Framework controls that the rule checks.
    pub controls: Vec<ControlRef>,
    /// Assets to which the rule applies.
    #[serde(default)]
    pub applies_to: AppliesTo,
    /// Parameters by name, each with its default. The default determines the parameter's type.
    #[serde(default)]
    pub params: serde_json::Value,
    /// CEL expression that is true if the asset passes.
    pub condition: String,
    /// CEL expressions by name. Their values are shown next to a verdict as evidence.
    #[serde(default)]
    pub evidence: std::collections::BTreeMap<String, String>,
    /// Instructions for fixing a failure.
    pub remediation: String,
}

/// Result of evaluating a rule on an asset.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleEvaluation {
    /// The verdict of the evaluation.
    pub verdict: Verdict,
    /// The missing fact for `NotAssessed`, the error message for `Error`; otherwise `None`.
    pub reason: Option<String>,
}

/// The next change of a verdict although no fact changes, e.g. because a certificate expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flip {
    /// Time of the change: the first microsecond with the new verdict.
    pub at: DateTime<Utc>,
    /// The verdict after the change.
    pub to: Verdict,
}
