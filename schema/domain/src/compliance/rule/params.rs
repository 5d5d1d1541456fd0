//! A rule's parameters, such as thresholds. The default of a parameter determines its type. An organization can set
//! another value of the same type.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::kind::{Kind, Type};
use crate::{
    base::{error::FieldError, nearest::nearest, text::beginning},
    inventory::attribute::whole_number,
};

/// Maximum number of parameters per rule.
const MAX_PARAMS: usize = 32;
/// Maximum number of items in a list.
const MAX_ITEMS: usize = 256;
/// Maximum number of characters in a string.
const MAX_TEXT_CHARS: usize = 1_024;

/// A rule's parameters by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Params {
    by_name: BTreeMap<String, ParamValue>,
    /// Names of parameters with an invalid default; their type is unknown.
    invalid: BTreeSet<String>,
}

/// Value of one parameter, in its type.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ParamValue {
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(String),
    Ints(Vec<i64>),
    Texts(Vec<String>),
}

impl Params {
    /// Parses the declared parameters of a rule: an object from name to default, or null for no parameters.
    ///
    /// # Errors
    /// One error for each invalid default, at `params.<name>`.
    pub fn declared(defaults: &Value) -> Result<Self, Vec<FieldError>> {
        let (params, faults) = Self::read(defaults);
        if faults.is_empty() { Ok(params) } else { Err(faults) }
    }

    /// Parses the valid defaults, and returns an error for each invalid default. The caller can then still check the
    /// condition and report all errors together.
    pub(super) fn read(defaults: &Value) -> (Self, Vec<FieldError>) {
        let none = serde_json::Map::new();
        let object = match defaults {
            Value::Object(object) => object,
            Value::Null => &none,
            _ => return (Self::default(), vec![not_an_object()]),
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
                let message =
                    "is not a valid name: use 1 to 63 of a-z, 0-9 and _, not starting with a digit";
                faults.push(FieldError::new(path, message));
                params.invalid.insert(name.clone());
                continue;
            }
            match ParamValue::of(value) {
                Ok(param) => {
                    params.by_name.insert(name.clone(), param);
                }
                Err(message) => {
                    faults.push(FieldError::new(path, message));
                    params.invalid.insert(name.clone());
                }
            }
        }
        (params, faults)
    }

    /// Returns the parameters with the values that an organization set.
    ///
    /// # Errors
    /// One error for each name that is not declared and for each value of another type, at `params.<name>`.
    pub fn with(&self, overrides: &Value) -> Result<Self, Vec<FieldError>> {
        let object = match overrides {
            Value::Object(object) => object,
            Value::Null => return Ok(self.clone()),
            _ => return Err(vec![not_an_object()]),
        };
        let mut faults = Vec::new();
        let mut params = self.clone();
        for (name, value) in object {
            let Some(param) = params.by_name.get_mut(name) else {
                faults.push(FieldError {
                    suggestion: self.nearest(name),
                    ..FieldError::new(path(name), self.unknown(name))
                });
                continue;
            };
            match param.converted(value) {
                Ok(value) => *param = value,
                Err(message) => faults.push(FieldError::new(path(name), message)),
            }
        }
        if faults.is_empty() { Ok(params) } else { Err(faults) }
    }

    /// Returns the overrides that match the name and type of a declared parameter; drops the others.
    pub(super) fn matching_overrides(&self, overrides: &Value) -> Value {
        let set = overrides.as_object().into_iter().flatten();
        let fits = |(name, value): &(&String, &Value)| {
            self.by_name.get(*name).is_some_and(|param| param.converted(value).is_ok())
        };
        let fitting = set.filter(fits).map(|(name, value)| (name.clone(), value.clone()));
        Value::Object(fitting.collect())
    }

    /// Returns the parameters as JSON, as they are stored.
    pub fn to_value(&self) -> Value {
        let object = self.by_name.iter().map(|(name, param)| (name.clone(), param.to_value()));
        Value::Object(object.collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&ParamValue> {
        self.by_name.get(name)
    }

    /// Returns true if the name is declared with an invalid default.
    pub(super) fn is_invalid(&self, name: &str) -> bool {
        self.invalid.contains(name)
    }

    /// Returns the declared name that is most similar to `name`, for a suggestion.
    pub(super) fn nearest(&self, name: &str) -> Option<String> {
        nearest(name, self.by_name.keys().map(String::as_str)).map(str::to_owned)
    }

    /// Returns the error message for an undeclared name. The message lists the declared names.
    pub(super) fn unknown(&self, name: &str) -> String {
        let known: Vec<&str> = self.by_name.keys().map(String::as_str).collect();
        let known = match known[..] {
            [] => "it has none".to_owned(),
            _ => format!("it has {}", known.join(", ")),
        };
        format!("the rule has no parameter {:?}: {known}", beginning(name))
    }
}

fn not_an_object() -> FieldError {
    FieldError::new("params", "must be an object, such as {\"max_age_days\": 30}")
}

fn path(name: &str) -> String {
    format!("params.{}", beginning(name))
}

/// Returns true if the name is valid for a parameter or an evidence entry.
pub(super) fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=63).contains(&name.len())
        && name.bytes().all(plain)
        && !name.starts_with(|first: char| first.is_ascii_digit())
}

impl ParamValue {
    fn of(value: &Value) -> Result<Self, String> {
        match value {
            Value::Bool(value) => Ok(Self::Bool(*value)),
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(number), _) => Ok(Self::Int(number)),
                (None, Some(number)) => Ok(Self::Double(number)),
                (None, None) => Err("is a number that is too large".to_owned()),
            },
            Value::String(text) => check_text(text).map(Self::Text),
            Value::Array(items) => match items.first() {
                Some(Value::String(_)) => texts(items),
                Some(_) => ints(items),
                None => {
                    Err("is an empty list, which has no item type: give it at least one item".to_owned())
                }
            },
            Value::Null | Value::Object(_) => {
                Err("must be true or false, a number, a string, or a list of whole numbers or of strings"
                    .to_owned())
            }
        }
    }

    /// Converts a JSON value to the type of this parameter. The error is a message.
    fn converted(&self, value: &Value) -> Result<Self, String> {
        let number = || value.as_i64().or_else(|| whole_number(value.as_f64()?));
        let type_error = || {
            let given = value.to_string();
            format!("must be {}, not {}", self.expected_type(), beginning(&given))
        };
        match (self, value) {
            (Self::Bool(_), Value::Bool(value)) => Ok(Self::Bool(*value)),
            (Self::Int(_), _) => number().map(Self::Int).ok_or_else(type_error),
            (Self::Double(_), _) => value.as_f64().map(Self::Double).ok_or_else(type_error),
            (Self::Text(_), Value::String(text)) => check_text(text).map(Self::Text),
            (Self::Ints(_), Value::Array(items)) => ints(items),
            (Self::Texts(_), Value::Array(items)) => texts(items),
            (Self::Bool(_) | Self::Text(_) | Self::Ints(_) | Self::Texts(_), _) => {
                Err(type_error())
            }
        }
    }

    const fn expected_type(&self) -> &'static str {
        match self {
            Self::Bool(_) => "true or false",
            Self::Int(_) => "a whole number",
            Self::Double(_) => "a number",
            Self::Text(_) => "a string",
            Self::Ints(_) => "a list of whole numbers",
            Self::Texts(_) => "a list of strings",
        }
    }

    pub(super) const fn value_type(&self) -> Type {
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

fn check_text(text: &str) -> Result<String, String> {
    let length = text.chars().count();
    if length > MAX_TEXT_CHARS {
        return Err(format!("has {length} characters, at most {MAX_TEXT_CHARS} are allowed"));
    }
    match text.chars().find(|character| character.is_control()) {
        Some(bad) => Err(format!("contains the control character U+{:04X}", bad as u32)),
        None => Ok(text.to_owned()),
    }
}

fn check_length(items: &[Value]) -> Result<(), String> {
    if items.len() > MAX_ITEMS {
        return Err(format!("has {} items, at most {MAX_ITEMS} are allowed", items.len()));
    }
    Ok(())
}

fn ints(items: &[Value]) -> Result<ParamValue, String> {
    check_length(items)?;
    let number = |item: &Value| {
        item.as_i64()
            .or_else(|| whole_number(item.as_f64()?))
            .ok_or_else(|| "must be a list of whole numbers only, or of strings only".to_owned())
    };
    Ok(ParamValue::Ints(items.iter().map(number).collect::<Result<_, _>>()?))
}

fn texts(items: &[Value]) -> Result<ParamValue, String> {
    check_length(items)?;
    let text = |item: &Value| match item {
        Value::String(text) => check_text(text),
        _ => Err("must be a list of whole numbers only, or of strings only".to_owned()),
    };
    Ok(ParamValue::Texts(items.iter().map(text).collect::<Result<_, _>>()?))
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
        for (name, given, stored) in [
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
            let converted = declared.with(&json!({ name: given }));
            let kept_now = converted.as_ref().ok().map(|params| params.to_value()[name].clone());
            assert_eq!(kept_now, stored, "{name} = {given}");
            if let Err(faults) = converted {
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
