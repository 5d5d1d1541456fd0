//! A rule: a machine-checkable condition on an asset, as data. (`rule/builtin`: the sixteen that ship; `rule/draft`: as people
//! write one; `rule/cel`: what a condition may say, and what it reads; `rule/facts`, `rule/key`, `rule/kind`: what it can
//! read of an asset, and of which types; `rule/env`: what a condition may call; `rule/program`: compiled, and evaluated; `rule/hash`: what it read, as a number;
//! `rule/evaluate`: its verdict, and when time alone changes that; `rule/params`: its thresholds; `rule/set`: those of an
//! organization, by slot; `rule/store`: saving them; `rule/trial`: what one would say; `rule/control`: what the controls of
//! frameworks are called.)
//!
//! A version never changes once it is saved, so what a run judged by can be read for ever. Built-in rules are rows like others,
//! written when an organization first judges by them; until then, and after an update, they are read from the binary.

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
pub use facts::{Described, Facts, Owner};
pub use key::Key;
pub use kind::{Kind, Type};
pub use params::Params;
pub use set::{CompiledRule, Ruleset};
pub use trial::{Example, Trial};

text_enum! {
    /// How bad it is when a rule is broken.
    Severity in "rule_version"."severity" {
        /// Worth knowing.
        Low = "LOW",
        /// Worth planning for.
        Medium = "MEDIUM",
        /// Worth interrupting other work.
        High = "HIGH",
        /// Worth waking somebody.
        Critical = "CRITICAL",
    }
}

impl Severity {
    /// What it counts in a score.
    pub const fn weight(self) -> i32 {
        match self {
            Self::Low => 1,
            Self::Medium => 2,
            Self::High => 5,
            Self::Critical => 10,
        }
    }
}

/// What a rule says of an asset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Enum, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Verdict {
    /// It holds.
    Pass,
    /// It does not hold.
    Fail,
    /// A fact that decides is missing.
    NotAssessed,
    /// It could not be judged; never a pass.
    Error,
}

/// One requirement of a framework, e.g. `NIST` `SC-28`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ControlRef {
    /// The framework: `NIST` (SP 800-53) or `CIS`, or any other name.
    pub framework: String,
    /// The requirement's code in it.
    pub code: String,
}

/// Which assets a rule is about; an empty list means any. Takes `COMPLIANCE_READ`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, SimpleObject)]
#[serde(default, deny_unknown_fields)]
#[graphql(name = "RuleScope", directive = requires::apply(Permission::ComplianceRead))]
pub struct AppliesTo {
    /// Of one of these types.
    pub types: Vec<AssetType>,
    /// In one of these environments.
    pub environments: Vec<Environment>,
    /// With one of these tags, by name.
    pub tags: Vec<String>,
}

/// A rule as it counts now: its version with what the organization set.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Its id; the same for all its versions.
    pub id: RuleId,
    /// What it is called by, e.g. `disk-encryption`; unique in the organization.
    pub key: String,
    /// Which version counts, from 1.
    pub version: i32,
    /// Whether it came with SentryOps.
    pub builtin: bool,
    /// Whether assets are judged by it.
    pub enabled: bool,
    /// What it says.
    pub definition: Definition,
    /// Its thresholds with what the organization set instead.
    pub params: serde_json::Value,
}

/// One version of a rule, which never changes.
#[derive(Debug, Clone, Copy)]
pub struct RuleVersion;

/// What a version of a rule says. Also the form of the files that ship.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// A line that says what must be so.
    pub title: String,
    /// How bad it is when it is not.
    pub severity: Severity,
    /// The requirements that it checks.
    pub controls: Vec<ControlRef>,
    /// Which assets it is about.
    #[serde(default)]
    pub applies_to: AppliesTo,
    /// Thresholds by name, each with its default, whose type is the parameter's.
    #[serde(default)]
    pub params: serde_json::Value,
    /// CEL: true where the asset passes.
    pub condition: String,
    /// CEL by name: what to show beside a verdict.
    #[serde(default)]
    pub evidence: std::collections::BTreeMap<String, String>,
    /// What to do about it.
    pub remediation: String,
}

/// What a rule says of an asset, and why where it says nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleEvaluation {
    /// The verdict.
    pub verdict: Verdict,
    /// Why there is none: which fact is missing, or what went wrong.
    pub reason: Option<String>,
}

/// The next time at which a verdict changes if nothing else does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flip {
    /// When, to the microsecond: the first instant at which the other verdict holds.
    pub at: DateTime<Utc>,
    /// What it becomes.
    pub to: Verdict,
}
