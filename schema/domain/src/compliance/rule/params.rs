//! A rule's thresholds: each has a default, whose type is the parameter's, and an organization may set another value of that
//! type.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::kind::{Kind, Type};
use crate::{
    base::{error::FieldError, nearest::nearest, text::beginning},
    inventory::attribute::whole,
};

/// Parameters of one rule at most.
const MAX_PARAMS: usize = 32;
/// Items of a list at most.
const MAX_ITEMS: usize = 256;
/// Characters of a text at most.
const MAX_TEXT_CHARS: usize = 1_024;

/// A rule's thresholds by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Params {
    thresholds: BTreeMap<String, Threshold>,
    /// Names whose defaults are none: nothing is known of them but that they are declared.
    refused: BTreeSet<String>,
}

/// One threshold.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Threshold {
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(String),
    Ints(Vec<i64>),
    Texts(Vec<String>),
}

impl Params {
    /// What a rule declares: an object of defaults; null is one without any.
    ///
    /// # Errors
    /// A fault for each that is none, at `params.<name>`.
    pub fn declared(defaults: &Value) -> Result<Self, Vec<FieldError>> {
        let (params, faults) = Self::read(defaults);
        if faults.is_empty() { Ok(params) } else { Err(faults) }
    }

    /// What of that can be read, and a fault for each that cannot: what a condition says can be checked beside them.
    pub(super) fn read(defaults: &Value) -> (Self, Vec<FieldError>) {
        let none = serde_json::Map::new();
        let object = match defaults {
            Value::Object(object) => object,
            Value::Null => &none,
            _ => return (Self::default(), vec![no_object()]),
        };
        let mut faults = Vec::new();
        if object.len() > MAX_PARAMS {
            let message =
                format!("has {} parameters, at most {MAX_PARAMS} are allowed", object.len());
            faults.push(FieldError::new("params", message));
        }
        let mut params = Self::default();
        for (name, value) in object {
            let path = path(name);
            if !is_name(name) {
                let message = "is no name: one has 1 to 63 of a-z, 0-9 and _, and does not start with a digit";
                faults.push(FieldError::new(path, message));
                params.refused.insert(name.clone());
                continue;
            }
            match Threshold::of(value) {
                Ok(threshold) => {
                    params.thresholds.insert(name.clone(), threshold);
                }
                Err(message) => {
                    faults.push(FieldError::new(path, message));
                    params.refused.insert(name.clone());
                }
            }
        }
        (params, faults)
    }

    /// The same with what an organization set instead.
    ///
    /// # Errors
    /// A fault for each name that is not declared and each value of another type, at `params.<name>`.
    pub fn with(&self, overrides: &Value) -> Result<Self, Vec<FieldError>> {
        let object = match overrides {
            Value::Object(object) => object,
            Value::Null => return Ok(self.clone()),
            _ => return Err(vec![no_object()]),
        };
        let mut faults = Vec::new();
        let mut params = self.clone();
        for (name, value) in object {
            let Some(threshold) = params.thresholds.get_mut(name) else {
                faults.push(FieldError {
                    suggestion: self.nearest(name),
                    ..FieldError::new(path(name), self.unknown(name))
                });
                continue;
            };
            match threshold.replaced(value) {
                Ok(value) => *threshold = value,
                Err(message) => faults.push(FieldError::new(path(name), message)),
            }
        }
        if faults.is_empty() { Ok(params) } else { Err(faults) }
    }

    /// Of what was set, that which still fits.
    pub(super) fn fitting(&self, overrides: &Value) -> Value {
        let set = overrides.as_object().into_iter().flatten();
        let fits = |(name, value): &(&String, &Value)| {
            self.thresholds.get(*name).is_some_and(|threshold| threshold.replaced(value).is_ok())
        };
        let fitting = set.filter(fits).map(|(name, value)| (name.clone(), value.clone()));
        Value::Object(fitting.collect())
    }

    /// As they are kept.
    pub fn to_value(&self) -> Value {
        let object =
            self.thresholds.iter().map(|(name, threshold)| (name.clone(), threshold.to_value()));
        Value::Object(object.collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&Threshold> {
        self.thresholds.get(name)
    }

    /// Whether it is declared, but its default is none.
    pub(super) fn is_refused(&self, name: &str) -> bool {
        self.refused.contains(name)
    }

    /// The declared name that was probably meant.
    pub(super) fn nearest(&self, name: &str) -> Option<String> {
        nearest(name, self.thresholds.keys().map(String::as_str)).map(str::to_owned)
    }

    /// That there is none of this name, and which there are.
    pub(super) fn unknown(&self, name: &str) -> String {
        let known: Vec<&str> = self.thresholds.keys().map(String::as_str).collect();
        let known = match known[..] {
            [] => "it has none".to_owned(),
            _ => format!("it has {}", known.join(", ")),
        };
        format!("the rule has no parameter {:?}: {known}", beginning(name))
    }
}

fn no_object() -> FieldError {
    FieldError::new("params", "must be an object, such as {\"max_age_days\": 30}")
}

fn path(name: &str) -> String {
    format!("params.{}", beginning(name))
}

/// Whether a threshold or an entry of evidence may be called so.
pub(super) fn is_name(name: &str) -> bool {
    let plain =
        |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'_';
    (1..=63).contains(&name.len())
        && name.bytes().all(plain)
        && !name.starts_with(|first: char| first.is_ascii_digit())
}

impl Threshold {
    fn of(value: &Value) -> Result<Self, String> {
        match value {
            Value::Bool(value) => Ok(Self::Bool(*value)),
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(number), _) => Ok(Self::Int(number)),
                (None, Some(number)) => Ok(Self::Double(number)),
                (None, None) => Err("is a number that is too large".to_owned()),
            },
            Value::String(text) => fitting(text).map(Self::Text),
            Value::Array(items) => match items.first() {
                Some(Value::String(_)) => texts(items),
                Some(_) => ints(items),
                None => {
                    Err("is an empty list, whose type is not known: give it an item".to_owned())
                }
            },
            Value::Null | Value::Object(_) => {
                Err("must be true or false, a number, a text, or a list of whole numbers or texts"
                    .to_owned())
            }
        }
    }

    /// Another value of the same type.
    fn replaced(&self, value: &Value) -> Result<Self, String> {
        let number = || value.as_i64().or_else(|| whole(value.as_f64()?));
        let wrong = || {
            let given = value.to_string();
            format!("must be {}, not {}", self.described(), beginning(&given))
        };
        match (self, value) {
            (Self::Bool(_), Value::Bool(value)) => Ok(Self::Bool(*value)),
            (Self::Int(_), _) => number().map(Self::Int).ok_or_else(wrong),
            (Self::Double(_), _) => value.as_f64().map(Self::Double).ok_or_else(wrong),
            (Self::Text(_), Value::String(text)) => fitting(text).map(Self::Text),
            (Self::Ints(_), Value::Array(items)) => ints(items),
            (Self::Texts(_), Value::Array(items)) => texts(items),
            (Self::Bool(_) | Self::Text(_) | Self::Ints(_) | Self::Texts(_), _) => Err(wrong()),
        }
    }

    const fn described(&self) -> &'static str {
        match self {
            Self::Bool(_) => "true or false",
            Self::Int(_) => "a whole number",
            Self::Double(_) => "a number",
            Self::Text(_) => "a text",
            Self::Ints(_) => "a list of whole numbers",
            Self::Texts(_) => "a list of texts",
        }
    }

    pub(super) const fn holds(&self) -> Type {
        match self {
            Self::Bool(_) => Type::One(Kind::Bool),
            Self::Int(_) => Type::One(Kind::Int),
            Self::Double(_) => Type::One(Kind::Double),
            Self::Text(_) => Type::One(Kind::Text),
            Self::Ints(_) => Type::List(Kind::Int),
            Self::Texts(_) => Type::List(Kind::Text),
        }
    }

    fn to_value(&self) -> Value {
        match self {
            Self::Bool(value) => json!(value),
            Self::Int(number) => json!(number),
            Self::Double(number) => json!(number),
            Self::Text(text) => json!(text),
            Self::Ints(numbers) => json!(numbers),
            Self::Texts(texts) => json!(texts),
        }
    }
}

fn fitting(text: &str) -> Result<String, String> {
    let length = text.chars().count();
    if length > MAX_TEXT_CHARS {
        return Err(format!("has {length} characters, at most {MAX_TEXT_CHARS} are allowed"));
    }
    match text.chars().find(|character| character.is_control()) {
        Some(bad) => Err(format!("holds the control character U+{:04X}", bad as u32)),
        None => Ok(text.to_owned()),
    }
}

fn within(items: &[Value]) -> Result<(), String> {
    if items.len() > MAX_ITEMS {
        return Err(format!("has {} items, at most {MAX_ITEMS} are allowed", items.len()));
    }
    Ok(())
}

fn ints(items: &[Value]) -> Result<Threshold, String> {
    within(items)?;
    let number = |item: &Value| {
        item.as_i64()
            .or_else(|| whole(item.as_f64()?))
            .ok_or_else(|| "must be a list of whole numbers only, or of texts only".to_owned())
    };
    Ok(Threshold::Ints(items.iter().map(number).collect::<Result<_, _>>()?))
}

fn texts(items: &[Value]) -> Result<Threshold, String> {
    within(items)?;
    let text = |item: &Value| match item {
        Value::String(text) => fitting(text),
        _ => Err("must be a list of whole numbers only, or of texts only".to_owned()),
    };
    Ok(Threshold::Texts(items.iter().map(text).collect::<Result<_, _>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_is_replaced_by_one_of_its_type() {
        let declared = Params::declared(&json!({
            "days": 30, "share": 0.5, "on": true, "word": "a", "ports": [22], "names": ["a"]
        }))
        .unwrap();
        for (name, given, kept) in [
            ("days", json!(7.0), Some(json!(7))),
            ("days", json!("7"), None),
            ("days", json!(7.5), None),
            ("share", json!(1), Some(json!(1.0))),
            ("on", json!(1), None),
            ("word", json!(1), None),
            ("ports", json!([]), Some(json!([]))),
            ("ports", json!(["22"]), None),
            ("ports", json!(22), None),
            ("names", json!([1]), None),
        ] {
            let replaced = declared.with(&json!({ name: given }));
            let kept_now = replaced.as_ref().ok().map(|params| params.to_value()[name].clone());
            assert_eq!(kept_now, kept, "{name} = {given}");
            if let Err(faults) = replaced {
                assert_eq!(faults[0].path, format!("params.{name}"));
            }
        }
        let unknown = declared.with(&json!({ "dayz": 1 })).unwrap_err();
        assert_eq!(unknown[0].suggestion.as_deref(), Some("days"));
    }

    #[test]
    fn what_is_no_default_is_refused_by_name() {
        for (given, path) in [
            (json!([]), "params"),
            (json!({"a": null}), "params.a"),
            (json!({"a": {}}), "params.a"),
            (json!({"a": []}), "params.a"),
            (json!({"a": [1, "b"]}), "params.a"),
            (json!({"A": 1}), "params.A"),
            (json!({"a": vec![1; 257]}), "params.a"),
            (json!({"a": "x".repeat(1_025)}), "params.a"),
            (json!((0..33).map(|n| (format!("p{n}"), n)).collect::<BTreeMap<_, _>>()), "params"),
        ] {
            let faults = Params::declared(&given).unwrap_err();
            assert_eq!(faults[0].path, path, "{given}");
        }
    }
}
