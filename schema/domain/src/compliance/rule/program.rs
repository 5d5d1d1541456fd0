//! A compiled expression, and its evaluation on an asset's facts.
//!
//! The `cel` crate evaluates the expression. After parsing, the compiler replaces each fact, each stored constant and
//! `now` by a one-character name from the Unicode Private Use Area. No rule can contain such a name itself, because the
//! parser accepts only ASCII letters, digits and `_` in names. The code point encodes the index of the fact, so reading
//! a fact is an array access without allocation.

use std::{fmt, sync::Arc};

use cel::{
    Context, ExecutionError, Value,
    common::{
        ast::IdedExpr,
        types::{CelBool, CelTimestamp},
        value::{CowVal, Val},
    },
    context::VariableResolver,
};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value as Json, json};

use super::{
    env::ENV,
    facts::{FactValue, Facts},
    key::FactKey,
};

/// Constants of an expression, the same for every asset: list parameters, and results of constant folding such as
/// lists, strings, timestamps and durations. Booleans and numbers are not stored here, but as literals in the
/// expression.
pub(super) type Constants = Vec<Box<dyn Val>>;

/// One-character names of facts, of the presence of facts (`has(…)`), of constants and of `now`. The code point of the
/// character encodes the index.
pub(super) mod encoding {
    use crate::compliance::rule::key::FactKey;

    const FACT_BASE: u32 = 0xE000;
    const PRESENCE_BASE: u32 = 0xE100;
    const CONSTANT_BASE: u32 = 0xE300;
    const LAST_CODE_POINT: u32 = 0xF8FF;
    /// Encoded name of `now`, the time of the evaluation.
    pub(in crate::compliance::rule) const NOW: char = '\u{E200}';

    /// Meaning of an encoded name: the value that the expression reads.
    pub(super) enum Variable {
        Fact(FactKey),
        Presence(FactKey),
        Now,
        Constant(usize),
    }

    fn name(code_point: u32) -> String {
        char::from_u32(code_point)
            .expect("the Private Use Area contains only valid characters")
            .to_string()
    }

    fn index(offset: u32) -> usize {
        usize::try_from(offset).expect("a code point fits a usize")
    }

    /// Returns the encoded name of a fact.
    pub(in crate::compliance::rule) fn encode_fact(key: FactKey) -> String {
        name(FACT_BASE + u32::try_from(key.index()).expect("the number of facts fits a u32"))
    }

    /// Returns the encoded name for the presence of a fact, i.e. the value of `has(…)`. `fact` is the encoded name of
    /// the fact.
    pub(in crate::compliance::rule) fn encode_presence(fact: &str) -> String {
        name(
            fact.chars().next().map_or(PRESENCE_BASE, |character| {
                u32::from(character) - FACT_BASE + PRESENCE_BASE
            }),
        )
    }

    /// Returns the encoded name of the constant at this index.
    pub(in crate::compliance::rule) fn encode_constant(index: usize) -> String {
        name(CONSTANT_BASE + u32::try_from(index).expect("the number of constants fits a u32"))
    }

    pub(in crate::compliance::rule) fn is_constant(name: &str) -> bool {
        matches!(decode(name), Some(Variable::Constant(_)))
    }

    pub(super) fn decode(name: &str) -> Option<Variable> {
        let character = name.chars().next()?;
        match u32::from(character) {
            code_point @ FACT_BASE..PRESENCE_BASE => {
                FactKey::of_index(index(code_point - FACT_BASE)).map(Variable::Fact)
            }
            code_point @ PRESENCE_BASE..0xE200 => {
                FactKey::of_index(index(code_point - PRESENCE_BASE)).map(Variable::Presence)
            }
            0xE200 => Some(Variable::Now),
            code_point @ CONSTANT_BASE..=LAST_CODE_POINT => {
                Some(Variable::Constant(index(code_point - CONSTANT_BASE)))
            }
            _ => None,
        }
    }
}
use encoding::Variable;

/// Maximum size of one evidence value. The value itself, each list item (including nested ones) and each character of a
/// string count 1. Evidence is read by people and stored with each finding.
const MAX_EVIDENCE_SIZE: usize = 2_000;

/// A compiled expression and its constants.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) expr: IdedExpr,
    pub(super) constants: Constants,
    /// Comparisons in the expression that change with time.
    pub(super) timed_comparisons: Vec<CompiledTimedComparison>,
}

/// A comparison whose result changes with time. `slope` is the rate at which (left − right) changes with `now`: 1 for
/// `now - x < y`, −1 for `x - now < y`, never 0.
#[derive(Debug)]
pub(super) struct CompiledTimedComparison {
    pub(super) left: IdedExpr,
    pub(super) right: IdedExpr,
    pub(super) slope: i64,
}

/// Reason why an expression cannot be evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EvalError {
    /// The expression reads a missing fact.
    Missing(FactKey),
    /// Any other error, with its message.
    Other(String),
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(key) => f.write_str(&key.missing_reason()),
            Self::Other(message) => f.write_str(message),
        }
    }
}

impl From<ExecutionError> for EvalError {
    fn from(error: ExecutionError) -> Self {
        if let ExecutionError::UndeclaredReference(name) = &error
            && let Some(Variable::Fact(key)) = encoding::decode(name)
        {
            return Self::Missing(key);
        }
        Self::Other(match error {
            ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
                "division by zero".to_owned()
            }
            ExecutionError::Overflow(..) => {
                "a number, a time or a length of time became too large".to_owned()
            }
            ExecutionError::IndexOutOfBounds(_) => "the list has no item of that number".to_owned(),
            ExecutionError::FunctionError { function, message } => format!("{function}: {message}"),
            other => crate::base::text::beginning(&other.to_string()).into_owned(),
        })
    }
}

/// Values for one evaluation: the facts of an asset, the time of the evaluation, and the constants of the program.
#[derive(Debug)]
pub(super) struct Activation<'a> {
    facts: Option<&'a Facts>,
    constants: &'a [Box<dyn Val>],
    cel_now: CelTimestamp,
    now: DateTime<Utc>,
}

static TRUE: CelBool = CelBool::TRUE;
static FALSE: CelBool = CelBool::FALSE;

fn bool_value<'a>(value: bool) -> CowVal<'a, 'a> {
    CowVal::Borrowed(if value { &TRUE } else { &FALSE })
}

impl<'a> Activation<'a> {
    pub(super) fn new(facts: &'a Facts, program: &'a Program, now: DateTime<Utc>) -> Self {
        let cel_now = now.fixed_offset().into();
        Self { facts: Some(facts), constants: &program.constants, cel_now, now }
    }

    /// Returns an activation without an asset, for constant folding.
    pub(super) fn of_constants(constants: &'a [Box<dyn Val>]) -> Self {
        let now = DateTime::UNIX_EPOCH;
        Self { facts: None, constants, cel_now: now.fixed_offset().into(), now }
    }

    /// Evaluates the expression to a CEL value.
    pub(super) fn eval(&self, expr: &IdedExpr) -> Result<Value, EvalError> {
        let mut context = Context::with_env(Arc::clone(&ENV));
        context.set_variable_resolver(self);
        Ok(Value::resolve(expr, &context)?)
    }

    /// Evaluates the expression as a condition.
    pub(super) fn eval_bool(&self, expr: &IdedExpr) -> Result<bool, EvalError> {
        match self.eval(expr)? {
            Value::Bool(value) => Ok(value),
            _ => Err(EvalError::Other("it is neither true nor false".to_owned())),
        }
    }

    /// Returns left side minus right side of a comparison, in microseconds; `None` if one of the sides cannot be
    /// evaluated.
    pub(super) fn difference(&self, comparison: &CompiledTimedComparison) -> Option<i64> {
        let micros = |expr| match self.eval(expr) {
            Ok(Value::Timestamp(at)) => Some(at.timestamp_micros()),
            Ok(Value::Duration(span)) => span.num_microseconds(),
            _ => None,
        };
        micros(&comparison.left)?.checked_sub(micros(&comparison.right)?)
    }

    /// Evaluates the expression to JSON for display; null if the expression cannot be evaluated.
    pub(super) fn eval_to_json(&self, expr: &IdedExpr) -> Json {
        self.eval(expr).map_or(Json::Null, |value| to_json(&value, &mut { MAX_EVIDENCE_SIZE }))
    }

    fn fact<'b>(&self, facts: &'b Facts, key: FactKey) -> Option<CowVal<'b, 'b>> {
        match facts.value(key) {
            Some(value) => Some(CowVal::Borrowed(match value {
                FactValue::Bool(value) => value,
                FactValue::Int(number) => number,
                FactValue::Text(text) => text,
                FactValue::Time(at) => at,
                FactValue::List(items) => items,
            })),
            None if key == Facts::os_supported_key() => {
                facts.derived_os_supported(self.now).map(bool_value)
            }
            None => None,
        }
    }
}

impl VariableResolver for Activation<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        match encoding::decode(name)? {
            Variable::Fact(key) => self.fact(self.facts?, key),
            Variable::Presence(key) => Some(bool_value(self.fact(self.facts?, key).is_some())),
            Variable::Now => Some(CowVal::Borrowed(&self.cel_now)),
            Variable::Constant(index) => {
                self.constants.get(index).map(|value| CowVal::Borrowed(value.as_ref()))
            }
        }
    }
}

/// Converts a value to JSON. Strings and lists are truncated once `budget`, the remaining number of characters and
/// items, is used up.
fn to_json(value: &Value, budget: &mut usize) -> Json {
    *budget = budget.saturating_sub(1);
    match value {
        Value::Bool(value) => json!(value),
        Value::Int(number) => json!(number),
        Value::Float(number) => json!(number),
        Value::String(text) => {
            let truncated: String = text.chars().take(*budget).collect();
            *budget -= truncated.chars().count();
            json!(truncated)
        }
        Value::Timestamp(at) => json!(at.to_utc().to_rfc3339_opts(SecondsFormat::AutoSi, true)),
        Value::Duration(span) => json!(days(*span)),
        Value::List(items) => {
            let mut array = Vec::new();
            for item in items.iter() {
                if *budget == 0 {
                    break;
                }
                array.push(to_json(item, budget));
            }
            Json::Array(array)
        }
        _ => Json::Null,
    }
}

/// Returns a duration in days, rounded to a tenth.
fn days(span: TimeDelta) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "CEL limits durations to 292 years, and f64 holds their milliseconds exactly"
    )]
    let tenths = (span.num_milliseconds() as f64 / 8_640_000.0).round();
    tenths / 10.0
}
