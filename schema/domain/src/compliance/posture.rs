//! An asset's posture: all its current verdicts and its score.
//!
//! | file | what lives there |
//! |---|---|
//! | `due` | changes that wait for re-evaluation |
//! | `evaluate`, `active_waivers` | evaluation, without a database; lookup of the waiver that covers a failure |
//! | `inputs_hash` | hash of all inputs of a posture except time |
//! | `record`, `store` | writing the result of an evaluation; its SQL |
//! | `reevaluate` | re-evaluation after a change, and when a flip is due |
//! | `verify` | comparison of the stored postures with a full evaluation |
//! | `verdict`, `tally` | verdicts with reason and evidence; sums over assets |
//!
//! A posture is one row per asset. Its verdict codes are a string with one character per rule, at the rule's slot: an
//! index that the rule keeps forever. One row per asset and rule would be 1.6 million rows for a hundred thousand
//! assets and sixteen rules, rewritten by every run. With one row per asset, an unchanged asset costs one comparison.
//! Reasons and evidence of rules that do not fail are not stored. They are evaluated from the facts when a client
//! requests them.
//!
//! A flip is an expected change of a verdict although no fact changes, e.g. because a certificate or a waiver expires.

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio_postgres::Row;

use crate::{
    base::{
        db::FromRow,
        entity::AssetId,
        error::{Error, Result},
    },
    compliance::rule::Verdict,
};

mod active_waivers;
pub mod due;
pub(crate) mod evaluate;
mod inputs_hash;
mod record;
mod reevaluate;
pub(crate) mod store;
pub(crate) mod tally;
mod verdict;
mod verify;

pub use reevaluate::{RemainingWork, next_flip, reevaluate, reevaluate_flips, refresh};
pub use tally::Sums;
pub use verdict::RuleVerdict;
pub use verify::{Mismatch, Verification, repair, verify};

/// A score of 100, in millionths of a percent.
const FULL_SCORE: i64 = 100_000_000;

/// The stored code of one rule's verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VerdictCode {
    /// The asset passes the rule.
    Pass,
    /// The asset fails the rule.
    Fail,
    /// The asset fails the rule and an active waiver covers the failure. Counts neither as passed nor as failed.
    Waived,
    /// A fact that the rule needs is missing.
    NotAssessed,
    /// The rule could not be evaluated.
    Error,
    /// The rule does not apply to this asset, or is disabled.
    Absent,
}

impl VerdictCode {
    /// Returns the character that is stored for the code.
    pub const fn as_byte(self) -> u8 {
        match self {
            Self::Pass => b'P',
            Self::Fail => b'F',
            Self::Waived => b'W',
            Self::NotAssessed => b'N',
            Self::Error => b'E',
            Self::Absent => b'-',
        }
    }

    /// Parses a stored code.
    ///
    /// # Errors
    /// `Corrupt` for an unknown code, e.g. of a newer server version.
    pub const fn from_byte(byte: u8) -> Result<Self> {
        Ok(match byte {
            b'P' => Self::Pass,
            b'F' => Self::Fail,
            b'W' => Self::Waived,
            b'N' => Self::NotAssessed,
            b'E' => Self::Error,
            b'-' => Self::Absent,
            _ => return Err(Error::Corrupt { table: "posture", column: "verdicts" }),
        })
    }

    /// Returns the verdict; `None` if the rule does not apply.
    pub const fn verdict(self) -> Option<Verdict> {
        match self {
            Self::Pass => Some(Verdict::Pass),
            Self::Fail | Self::Waived => Some(Verdict::Fail),
            Self::NotAssessed => Some(Verdict::NotAssessed),
            Self::Error => Some(Verdict::Error),
            Self::Absent => None,
        }
    }
}

impl VerdictCode {
    /// Returns true for a failure, waived or not. A failure has a live finding.
    const fn is_failure(self) -> bool {
        match self {
            Self::Fail | Self::Waived => true,
            Self::Pass | Self::NotAssessed | Self::Error | Self::Absent => false,
        }
    }

    /// Returns true if a live finding may exist: an error does not end the finding of an earlier failure.
    const fn may_have_live_finding(self) -> bool {
        self.is_failure() || matches!(self, Self::Error)
    }
}

/// An expected change of a verdict without a change of facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flip {
    /// The rule's slot: the index of its verdict in the posture.
    pub slot: usize,
    /// Time of the change, with microsecond precision.
    pub at: DateTime<Utc>,
    /// The code after the change.
    pub to: VerdictCode,
}

/// An asset's posture as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Posture {
    /// The asset that was evaluated.
    pub asset: AssetId,
    /// The verdict codes, by slot.
    pub codes: Vec<VerdictCode>,
    /// Weight of the passed rules out of the weight of the passed and failed rules, in millionths of a percent. `None`
    /// if no rule passes or fails without a waiver.
    pub score: Option<i32>,
    /// Sum of the weights of rules that pass.
    pub passed_weight: i32,
    /// Sum of the weights of rules that fail without a waiver.
    pub failed_weight: i32,
    /// Sum of the weights of rules with a waived failure.
    pub waived_weight: i32,
    /// Sum of the weights of all enabled rules that apply to the asset.
    pub whole_weight: i32,
    /// The next flip of each rule that has one, ordered by slot.
    pub flips: Vec<Flip>,
    /// Messages of the verdicts `ERROR`, as a JSON object from slot to text; `None` without errors.
    pub errors: Option<Value>,
    /// Hash of the facts that the rules read and of the waivers in effect. Stored in the column `facts_hash`.
    pub inputs_hash: i64,
    /// Time of the evaluation that produced this posture. An evaluation with the same result is not stored.
    pub evaluated_at: DateTime<Utc>,
}

impl FromRow for Posture {
    fn from_row(row: &Row) -> Result<Self> {
        let corrupt = Error::Corrupt { table: "posture", column: "flips" };
        let codes: &str = row.try_get("verdicts")?;
        let flips: Option<Value> = row.try_get("flips")?;
        let flips: Option<Vec<(usize, i64, char)>> =
            flips.map(serde_json::from_value).transpose().map_err(|_| corrupt)?;
        let flip = |(slot, micros, code): (usize, i64, char)| {
            let at = DateTime::from_timestamp_micros(micros)
                .ok_or(Error::Corrupt { table: "posture", column: "flips" })?;
            let corrupt = Error::Corrupt { table: "posture", column: "flips" };
            let code = u8::try_from(code).map_err(|_| corrupt)?;
            Ok(Flip { slot, at, to: VerdictCode::from_byte(code)? })
        };
        Ok(Self {
            asset: row.try_get("asset_id")?,
            codes: codes.bytes().map(VerdictCode::from_byte).collect::<Result<_>>()?,
            score: row.try_get("score")?,
            passed_weight: row.try_get("passed_weight")?,
            failed_weight: row.try_get("failed_weight")?,
            waived_weight: row.try_get("waived_weight")?,
            whole_weight: row.try_get("whole_weight")?,
            flips: flips.unwrap_or_default().into_iter().map(flip).collect::<Result<_>>()?,
            errors: row.try_get("errors")?,
            inputs_hash: row.try_get("facts_hash")?,
            evaluated_at: row.try_get("evaluated_at")?,
        })
    }
}

impl Posture {
    /// Returns a posture without verdicts.
    const fn empty(asset: AssetId, evaluated_at: DateTime<Utc>) -> Self {
        Self {
            asset,
            codes: Vec::new(),
            score: None,
            passed_weight: 0,
            failed_weight: 0,
            waived_weight: 0,
            whole_weight: 0,
            flips: Vec::new(),
            errors: None,
            inputs_hash: 0,
            evaluated_at,
        }
    }

    fn code(&self, slot: usize) -> VerdictCode {
        self.codes.get(slot).copied().unwrap_or(VerdictCode::Absent)
    }

    fn add_weight(&mut self, code: VerdictCode, weight: i32) {
        match code {
            VerdictCode::Pass => self.passed_weight += weight,
            VerdictCode::Fail => self.failed_weight += weight,
            VerdictCode::Waived => self.waived_weight += weight,
            VerdictCode::NotAssessed | VerdictCode::Error => {}
            VerdictCode::Absent => return,
        }
        self.whole_weight += weight;
    }

    fn compute_score(&self) -> Option<i32> {
        let assessed = i64::from(self.passed_weight + self.failed_weight);
        let score = (i64::from(self.passed_weight) * FULL_SCORE).checked_div(assessed)?;
        Some(i32::try_from(score).expect("a score is at most FULL_SCORE, which fits an i32"))
    }

    /// Returns true if both postures have the same result, regardless of the time of evaluation.
    pub(crate) fn has_same_result(&self, other: &Self) -> bool {
        self.codes == other.codes
            && self.inputs_hash == other.inputs_hash
            && self.flips == other.flips
            && self.errors == other.errors
            && (self.passed_weight, self.failed_weight, self.waived_weight, self.whole_weight)
                == (
                    other.passed_weight,
                    other.failed_weight,
                    other.waived_weight,
                    other.whole_weight,
                )
    }
}
