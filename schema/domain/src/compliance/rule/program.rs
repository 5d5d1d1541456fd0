//! A compiled expression, and one look at an asset's facts through it.
//!
//! CEL's own evaluator runs it. What a rule reads stands in it as a name of one letter from a range of Unicode that no source can
//! write: the letter's number is the fact's, so that reading one is an index and allocates nothing.

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
    key::Key,
};

/// What is the same for every asset.
pub(super) type Constants = Vec<Box<dyn Val>>;

/// The names that stand for what is read.
pub(super) mod code {
    use crate::compliance::rule::key::Key;

    const KEYS: u32 = 0xE000;
    const ASKED: u32 = 0xE100;
    const CONSTANTS: u32 = 0xE300;
    const LAST: u32 = 0xF8FF;
    /// The instant at which is judged.
    pub(in crate::compliance::rule) const NOW: char = '\u{E200}';

    /// What a name stands for.
    pub(super) enum Code {
        Fact(Key),
        IsKnown(Key),
        Now,
        Constant(usize),
    }

    fn name(number: u32) -> String {
        char::from_u32(number).expect("all of the range are characters").to_string()
    }

    fn index(number: u32) -> usize {
        usize::try_from(number).expect("usize holds a character's number")
    }

    /// What the key holds.
    pub(in crate::compliance::rule) fn of_key(key: Key) -> String {
        name(KEYS + u32::try_from(key.index()).expect("there are fewer keys than that"))
    }

    /// Whether what this name stands for is known.
    pub(in crate::compliance::rule) fn asking(read: &str) -> String {
        name(read.chars().next().map_or(ASKED, |letter| u32::from(letter) - KEYS + ASKED))
    }

    /// A constant, by its index.
    pub(in crate::compliance::rule) fn of_constant(index: usize) -> String {
        name(CONSTANTS + u32::try_from(index).expect("a source has fewer constants than that"))
    }

    pub(in crate::compliance::rule) fn is_constant(name: &str) -> bool {
        matches!(read(name), Some(Code::Constant(_)))
    }

    pub(super) fn read(name: &str) -> Option<Code> {
        let letter = name.chars().next()?;
        match u32::from(letter) {
            number @ KEYS..ASKED => Key::of_index(index(number - KEYS)).map(Code::Fact),
            number @ ASKED..0xE200 => Key::of_index(index(number - ASKED)).map(Code::IsKnown),
            0xE200 => Some(Code::Now),
            number @ CONSTANTS..=LAST => Some(Code::Constant(index(number - CONSTANTS))),
            _ => None,
        }
    }
}
use code::Code;

/// Characters and items that one name of evidence shows: it is for people, and kept with each finding.
const MAX_SHOWN_CHARS: usize = 2_000;

/// A compiled expression.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) expr: IdedExpr,
    pub(super) constants: Constants,
    /// Its comparisons that time moves.
    pub(super) timed_comparisons: Vec<CompiledComparison>,
}

/// A comparison that time moves: its sides, and by how much their difference grows while the clock advances by one.
#[derive(Debug)]
pub(super) struct CompiledComparison {
    pub(super) left: IdedExpr,
    pub(super) right: IdedExpr,
    pub(super) slope: i64,
}

/// Why an expression has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EvalError {
    /// A fact is missing.
    Missing(Key),
    /// Something else.
    Other(String),
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(key) => f.write_str(&key.absence()),
            Self::Other(message) => f.write_str(message),
        }
    }
}

impl From<ExecutionError> for EvalError {
    fn from(error: ExecutionError) -> Self {
        if let ExecutionError::UndeclaredReference(name) = &error
            && let Some(Code::Fact(key)) = code::read(name)
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

/// An asset's facts at an instant, as one program reads them.
#[derive(Debug)]
pub(super) struct View<'a> {
    facts: Option<&'a Facts>,
    constants: &'a [Box<dyn Val>],
    now: CelTimestamp,
    at: DateTime<Utc>,
}

static TRUE: CelBool = CelBool::TRUE;
static FALSE: CelBool = CelBool::FALSE;

fn borrowed<'a>(value: bool) -> CowVal<'a, 'a> {
    CowVal::Borrowed(if value { &TRUE } else { &FALSE })
}

impl<'a> View<'a> {
    pub(super) fn new(facts: &'a Facts, program: &'a Program, at: DateTime<Utc>) -> Self {
        let now = at.fixed_offset().into();
        Self { facts: Some(facts), constants: &program.constants, now, at }
    }

    /// Without an asset: for what follows from constants alone.
    pub(super) fn of_constants(constants: &'a [Box<dyn Val>]) -> Self {
        let at = DateTime::UNIX_EPOCH;
        Self { facts: None, constants, now: at.fixed_offset().into(), at }
    }

    /// What the expression comes to.
    pub(super) fn value(&self, expr: &IdedExpr) -> Result<Value, EvalError> {
        let mut context = Context::with_env(Arc::clone(&ENV));
        context.set_variable_resolver(self);
        Ok(Value::resolve(expr, &context)?)
    }

    /// Whether the expression is true.
    pub(super) fn is_true(&self, expr: &IdedExpr) -> Result<bool, EvalError> {
        match self.value(expr)? {
            Value::Bool(value) => Ok(value),
            _ => Err(EvalError::Other("it is neither true nor false".to_owned())),
        }
    }

    /// How far a comparison's left side is above its right one, in microseconds; none where it cannot be value.
    pub(super) fn difference(&self, timed_comparisons: &CompiledComparison) -> Option<i64> {
        let micros = |expr| match self.value(expr) {
            Ok(Value::Timestamp(at)) => Some(at.timestamp_micros()),
            Ok(Value::Duration(span)) => span.num_microseconds(),
            _ => None,
        };
        micros(&timed_comparisons.left)?.checked_sub(micros(&timed_comparisons.right)?)
    }

    /// What the expression comes to, as people read it; null where it has no value.
    pub(super) fn shown(&self, expr: &IdedExpr) -> Json {
        self.value(expr).map_or(Json::Null, |value| shown(&value, &mut { MAX_SHOWN_CHARS }))
    }

    fn fact<'b>(&self, facts: &'b Facts, key: Key) -> Option<CowVal<'b, 'b>> {
        match facts.value(key) {
            Some(held) => Some(CowVal::Borrowed(match held {
                FactValue::Bool(value) => value,
                FactValue::Int(number) => number,
                FactValue::Text(text) => text,
                FactValue::Time(at) => at,
                FactValue::List(items) => items,
            })),
            None if key == Facts::support() => facts.derived_support(self.at).map(borrowed),
            None => None,
        }
    }
}

impl VariableResolver for View<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        match code::read(name)? {
            Code::Fact(key) => self.fact(self.facts?, key),
            Code::IsKnown(key) => Some(borrowed(self.fact(self.facts?, key).is_some())),
            Code::Now => Some(CowVal::Borrowed(&self.now)),
            Code::Constant(index) => {
                self.constants.get(index).map(|value| CowVal::Borrowed(value.as_ref()))
            }
        }
    }
}

/// As JSON, as far as there is room; what does not fit is left out.
fn shown(value: &Value, room: &mut usize) -> Json {
    *room = room.saturating_sub(1);
    match value {
        Value::Bool(value) => json!(value),
        Value::Int(number) => json!(number),
        Value::Float(number) => json!(number),
        Value::String(text) => {
            let shown: String = text.chars().take(*room).collect();
            *room -= shown.chars().count();
            json!(shown)
        }
        Value::Timestamp(at) => json!(at.to_utc().to_rfc3339_opts(SecondsFormat::AutoSi, true)),
        Value::Duration(span) => json!(days(*span)),
        Value::List(items) => {
            let mut kept = Vec::new();
            for item in items.iter() {
                if *room == 0 {
                    break;
                }
                kept.push(shown(item, room));
            }
            Json::Array(kept)
        }
        _ => Json::Null,
    }
}

/// A length of time in days, to a tenth.
fn days(span: TimeDelta) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "tenths of days within 292 years are exact")]
    let tenths = (span.num_milliseconds() as f64 / 8_640_000.0).round();
    tenths / 10.0
}
