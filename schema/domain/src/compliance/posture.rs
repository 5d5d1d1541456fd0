//! An asset's posture: what every rule says of it now.
//!
//! | file | what lives there |
//! |---|---|
//! | `due` | what is to be judged anew |
//! | `evaluate`, `active_waivers` | judging, without a database; which waiver allows what |
//! | `inputs_hash` | all that a posture follows from, as a number |
//! | `record`, `store` | writing what that changed; its SQL |
//! | `reevaluate` | judging after a change, and when time has come |
//! | `verify` | proving that what is kept is what judging finds |
//! | `verdict`, `tally` | verdicts as people see them; sums over assets |
//!
//! One row an asset, with one code a rule at the rule's slot, because a hundred thousand assets by sixteen rules would be
//! 1.6 million rows that each run writes again; as it is, an unchanged asset costs a comparison. Reasons and evidence of what
//! does not fail are not kept: they are judged again from the facts when somebody asks.

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

pub use reevaluate::{Reevaluated, next_flip, reevaluate, reevaluate_flips, refresh};
pub use tally::Sums;
pub use verdict::RuleVerdict;
pub use verify::{Mismatch, Verified, repair, verify};

/// A score of 100, in millionths of a percent.
const FULL_SCORE: i64 = 100_000_000;

/// What is kept of one rule's verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VerdictCode {
    /// It holds.
    Pass,
    /// It does not.
    Fail,
    /// It does not, and a waiver allows that: counts neither as passed nor as failed.
    Waived,
    /// A fact is missing.
    NotAssessed,
    /// It could not be judged.
    Error,
    /// The rule is not about this asset, or is switched off.
    Absent,
}

impl VerdictCode {
    /// As it is kept.
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

    /// What a kept one means.
    ///
    /// # Errors
    /// `Corrupt` for one of a newer version.
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

    /// The verdict that it stands for; none where the rule does not apply.
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
    /// Whether there is a finding.
    const fn is_broken(self) -> bool {
        match self {
            Self::Fail | Self::Waived => true,
            Self::Pass | Self::NotAssessed | Self::Error | Self::Absent => false,
        }
    }

    /// Whether there may be a finding: what cannot be judged leaves it as it is.
    const fn may_be_broken(self) -> bool {
        self.is_broken() || matches!(self, Self::Error)
    }
}

/// What a verdict becomes by time alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flip {
    /// The rule's slot.
    pub slot: usize,
    /// When, to the microsecond.
    pub at: DateTime<Utc>,
    /// What it becomes.
    pub to: VerdictCode,
}

/// An asset's posture as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Posture {
    /// The asset.
    pub asset: AssetId,
    /// By slot.
    pub codes: Vec<VerdictCode>,
    /// Passed of passed and failed weight, in millionths of a percent; none where nothing is assessed.
    pub score: Option<i32>,
    /// Weight of rules that hold.
    pub passed_weight: i32,
    /// Weight of rules that do not.
    pub failed_weight: i32,
    /// Weight of rules whose failing is waived.
    pub waived_weight: i32,
    /// Weight of all rules that apply.
    pub whole_weight: i32,
    /// What time alone will change, by slot.
    pub flips: Vec<Flip>,
    /// Why a rule could not be judged, by slot, as a JSON object.
    pub errors: Option<Value>,
    /// The hash of the facts that the rules read and of the waivers that count, in the column `facts_hash`.
    pub inputs_hash: i64,
    /// When it became this.
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
    /// Of no rule yet.
    const fn blank(asset: AssetId, evaluated_at: DateTime<Utc>) -> Self {
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

    fn count(&mut self, code: VerdictCode, weight: i32) {
        match code {
            VerdictCode::Pass => self.passed_weight += weight,
            VerdictCode::Fail => self.failed_weight += weight,
            VerdictCode::Waived => self.waived_weight += weight,
            VerdictCode::NotAssessed | VerdictCode::Error => {}
            VerdictCode::Absent => return,
        }
        self.whole_weight += weight;
    }

    fn scored(&self) -> Option<i32> {
        let assessed = i64::from(self.passed_weight + self.failed_weight);
        let score = (i64::from(self.passed_weight) * FULL_SCORE).checked_div(assessed)?;
        Some(i32::try_from(score).expect("a part of the whole, which an i32 holds"))
    }

    /// Whether another look found the same.
    pub(crate) fn says_the_same_as(&self, other: &Self) -> bool {
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
