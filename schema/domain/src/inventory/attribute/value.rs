//! Parsing of attribute values from all accepted forms, and formatting of values as cells of a file. A formatted cell
//! parses to the same value again.

use std::collections::BTreeSet;

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, SecondsFormat, Utc};
use serde_json::{Value, json};
use unicode_normalization::UnicodeNormalization;

use super::AttributeType;
use crate::base::text::beginning;

/// Maximum length of a text, in characters.
const MAX_TEXT_CHARS: usize = 1_024;
/// Maximum number of items in a list.
const MAX_ITEMS: usize = 1_000;

/// Converts a value to the form in which values of this type are stored.
///
/// # Errors
/// A message that describes the error in the value, without a full stop.
pub(super) fn read(
    attribute_type: AttributeType,
    bounds: (i64, i64),
    value: &Value,
) -> Result<Value, String> {
    match attribute_type {
        AttributeType::Boolean => boolean(value).map(Value::Bool).ok_or_else(|| {
            format!("must be true or false (also accepted: yes, no, on, off, enabled, disabled, 1, 0), not {}", quoted(value))
        }),
        AttributeType::Integer => integer(value, bounds).map(|number| json!(number)),
        AttributeType::DateTime => date_time(value)
            .map(|at| json!(at.to_rfc3339_opts(SecondsFormat::AutoSi, true)))
            .ok_or_else(|| {
                format!(
                    "must be a time such as 2026-05-31T18:00:00Z or 2026-05-31, not {}",
                    quoted(value)
                )
            }),
        AttributeType::Text => text(value).map(Value::String),
        AttributeType::IntegerList => {
            let numbers = items(value, "list of numbers", &[',', ' ', ';'])?
                .iter()
                .map(|item| integer(item, bounds))
                .collect::<Result<BTreeSet<_>, _>>()?;
            Ok(json!(numbers))
        }
        AttributeType::TextList => {
            let texts = items(value, "list of texts", &[',', ';'])?;
            let mut stored = Vec::with_capacity(texts.len());
            for item in &texts {
                let item = text(item)?;
                if item.contains([',', ';']) {
                    return Err(format!("{item:?} contains a comma or semicolon, which separate items"));
                }
                if !stored.contains(&item) {
                    stored.push(item);
                }
            }
            Ok(json!(stored))
        }
    }
}

/// Formats a stored value as a cell of a file. The cell parses to the same value again.
pub fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        // As JSON, because an empty cell would mean no value, and an item that looks like a JSON list would be parsed
        // as one.
        Value::Array(items) if items.is_empty() || items.iter().any(looks_like_json) => {
            value.to_string()
        }
        Value::Array(items) => {
            let separator = if items.iter().all(Value::is_number) { " " } else { "," };
            items.iter().map(cell).collect::<Vec<_>>().join(separator)
        }
        Value::Null => String::new(),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

fn looks_like_json(item: &Value) -> bool {
    item.as_str().is_some_and(|item| item.starts_with('['))
}

fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        Value::Number(number) => number.as_f64().map(|number| number != 0.0),
        Value::String(text) => boolean_of(text),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Parses a boolean word such as `yes`, `off` or `enabled`, ignoring case; `None` for other words.
pub(crate) fn boolean_of(text: &str) -> Option<bool> {
    match text.trim().to_lowercase().as_str() {
        "true" | "yes" | "1" | "on" | "enabled" => Some(true),
        "false" | "no" | "0" | "off" | "disabled" => Some(false),
        _ => None,
    }
}

fn integer(value: &Value, (minimum, maximum): (i64, i64)) -> Result<i64, String> {
    let number = match value {
        Value::Number(number) => number.as_i64().or_else(|| whole_number(number.as_f64()?)),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    let number = number.ok_or_else(|| format!("must be a whole number, not {}", quoted(value)))?;
    if (minimum..=maximum).contains(&number) {
        Ok(number)
    } else if maximum == i64::MAX {
        Err(format!("must be at least {minimum}, not {number}"))
    } else {
        Err(format!("must be between {minimum} and {maximum}, not {number}"))
    }
}

/// Converts a whole number such as 90.0 to an integer, because JSON has only one type of number. `None` if the number
/// has a fraction or its absolute value is 9 · 10^15 or more.
pub(crate) fn whole_number(number: f64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "whole and within 2^53, as checked")]
    (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64)
}

fn date_time(value: &Value) -> Option<DateTime<Utc>> {
    match value {
        Value::Number(number) => {
            date_time_of_seconds(number.as_i64().or_else(|| whole_number(number.as_f64()?))?)
        }
        Value::String(text) => date_time_of(text),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Converts a number of seconds since 1970 to a time; `None` for times before 1990 or after the year 9999.
pub(crate) fn date_time_of_seconds(number: i64) -> Option<DateTime<Utc>> {
    seconds(number).filter(is_plausible)
}

/// Parses a time in any form that [`AttributeType::DateTime`] accepts; `None` for other texts and for times before 1970
/// or after the year 9999.
pub(crate) fn date_time_of(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim();
    let local = |form| NaiveDateTime::parse_from_str(text, form).ok().map(|at| at.and_utc());
    DateTime::parse_from_rfc3339(text)
        .ok()
        .map(|at| at.to_utc())
        .or_else(|| {
            DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%#z").ok().map(|at| at.to_utc())
        })
        .or_else(|| local("%Y-%m-%dT%H:%M:%S%.f"))
        .or_else(|| local("%Y-%m-%d %H:%M:%S%.f"))
        .or_else(|| local("%Y-%m-%dT%H:%M"))
        .or_else(|| local("%Y-%m-%d %H:%M"))
        .or_else(|| {
            let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
            Some(date.and_hms_opt(0, 0, 0)?.and_utc())
        })
        .or_else(|| seconds(text.parse().ok()?))
        .filter(is_plausible)
}

/// Returns true for the years from 1970 to 9999. RFC 3339 cannot represent later years, and earlier ones are mistakes.
fn is_plausible(at: &DateTime<Utc>) -> bool {
    (1970..10_000).contains(&at.year())
}

/// Converts a number of seconds since 1970 to a time. `None` for numbers before 1990: small numbers are years or dates
/// without dashes, such as 2026 or 20260531.
fn seconds(number: i64) -> Option<DateTime<Utc>> {
    const MIN_SECONDS: i64 = 631_152_000; // 1990-01-01
    DateTime::from_timestamp(number, 0).filter(|_| number >= MIN_SECONDS)
}

fn text(value: &Value) -> Result<String, String> {
    let text = match value {
        Value::String(text) => text.trim().nfc().collect::<String>(),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            return Err(format!("must be a text, not {}", quoted(value)));
        }
    };
    let length = text.chars().count();
    if text.is_empty() {
        return Err("must not be empty: use null to remove the value".to_owned());
    }
    if length > MAX_TEXT_CHARS {
        return Err(format!("has {length} characters, at most {MAX_TEXT_CHARS} are allowed"));
    }
    match text.chars().find(|character| character.is_control()) {
        Some(character) => {
            Err(format!("contains the control character U+{:04X}", character as u32))
        }
        None => Ok(text),
    }
}

fn items(value: &Value, expected: &str, separators: &[char]) -> Result<Vec<Value>, String> {
    let items = match value {
        Value::Array(items) => items.clone(),
        Value::Number(_) => vec![value.clone()],
        Value::String(text) => match serde_json::from_str(text) {
            Ok(Value::Array(items)) => items,
            _ => text
                .split(separators)
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| json!(item))
                .collect(),
        },
        Value::Null | Value::Bool(_) | Value::Object(_) => {
            return Err(format!("must be a {expected}, not {}", quoted(value)));
        }
    };
    if items.len() > MAX_ITEMS {
        return Err(format!("has {} items, at most {MAX_ITEMS} are allowed", items.len()));
    }
    Ok(items)
}

fn quoted(value: &Value) -> String {
    beginning(&value.to_string()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: (i64, i64) = (i64::MIN, i64::MAX);

    #[test]
    fn values_are_read_in_whatever_form_they_come() {
        use AttributeType::{Boolean, DateTime, Integer, IntegerList, Text, TextList};
        for (attribute_type, given, stored) in [
            (Boolean, json!(true), json!(true)),
            (Boolean, json!(" Enabled "), json!(true)),
            (Boolean, json!("OFF"), json!(false)),
            (Boolean, json!(0), json!(false)),
            (Boolean, json!(2.5), json!(true)),
            (Integer, json!("90"), json!(90)),
            (Integer, json!(90.0), json!(90)),
            (DateTime, json!("2026-05-31"), json!("2026-05-31T00:00:00Z")),
            (DateTime, json!("2026-05-31T18:00:00+02:00"), json!("2026-05-31T16:00:00Z")),
            (DateTime, json!("2026-05-31 18:00:00"), json!("2026-05-31T18:00:00Z")),
            (DateTime, json!(1_780_000_000), json!("2026-05-28T20:26:40Z")),
            (DateTime, json!("1780000000"), json!("2026-05-28T20:26:40Z")),
            (DateTime, json!("2026-05-31T18:00:00.125Z"), json!("2026-05-31T18:00:00.125Z")),
            (Text, json!("  Cafe\u{301} "), json!("Café")),
            (Text, json!(20.04), json!("20.04")),
            (IntegerList, json!([443, "22", 22]), json!([22, 443])),
            (IntegerList, json!("443, 22;80"), json!([22, 80, 443])),
            (IntegerList, json!("[443,22]"), json!([22, 443])),
            (IntegerList, json!(22), json!([22])),
            (IntegerList, json!([]), json!([])),
            (TextList, json!("10.0.0.1, fe80::1"), json!(["10.0.0.1", "fe80::1"])),
        ] {
            assert_eq!(read(attribute_type, ANY, &given), Ok(stored), "{attribute_type:?} {given}");
        }
    }

    #[test]
    fn what_is_no_value_of_the_type_is_refused() {
        use AttributeType::{Boolean, DateTime, Integer, IntegerList, Text, TextList};
        for (attribute_type, given) in [
            (Boolean, json!("maybe")),
            (Boolean, json!([])),
            (Integer, json!(true)),
            (Integer, json!(1.5)),
            (Integer, json!("ninety")),
            (DateTime, json!("31.05.2026")),
            (DateTime, json!("2026-02-30")),
            (DateTime, json!(-1)),
            (DateTime, json!("2026")),
            (DateTime, json!("20260531")),
            (DateTime, json!(20_260_531)),
            (DateTime, json!(true)),
            (Text, json!("a\nb")),
            (Text, json!(" ")),
            (Text, json!({})),
            (IntegerList, json!([true])),
            (IntegerList, json!("22, ssh")),
            (TextList, json!(["a,b"])),
        ] {
            let refused = read(attribute_type, ANY, &given);
            assert!(refused.is_err(), "{attribute_type:?} {given}: {refused:?}");
        }
        assert_eq!(
            read(Integer, (0, 65_535), &json!(70_000)),
            Err("must be between 0 and 65535, not 70000".to_owned())
        );
    }

    #[test]
    fn a_cell_reads_back_the_same() {
        use AttributeType::{Boolean, DateTime, Integer, IntegerList, Text, TextList};
        for (attribute_type, stored) in [
            (Boolean, json!(false)),
            (Integer, json!(-3)),
            (DateTime, json!("2026-05-31T18:00:00.125Z")),
            (Text, json!("a, \"b\" = c")),
            (IntegerList, json!([22, 443])),
            (IntegerList, json!([])),
            (TextList, json!(["10.0.0.1", "fe80::1"])),
            (TextList, json!(["[1]", "b"])),
        ] {
            assert_eq!(read(attribute_type, ANY, &json!(cell(&stored))), Ok(stored));
        }
    }
}
