//! Rules for the two JSON objects of an asset, `attributes` and `customFields`: a size limit for both, and the merge of
//! changes into custom fields. Custom field values are normalised to the form in which Postgres returns them.

use serde_json::{Map, Value};

use crate::base::error::FieldError;

/// Maximum size of `attributes` or `customFields`, in bytes of JSON.
const OBJECT_BYTES: usize = 20_000;
/// Maximum nesting depth of `customFields`. Postgres stores deeper values than `serde_json` can parse.
const OBJECT_LEVELS: usize = 32;

/// Returns `current` with the changes merged into it by key; the value `null` removes a key. Adds one error to `faults`
/// for each invalid key or value.
pub(super) fn merge(
    path: &str,
    current: &Value,
    changes: &Value,
    faults: &mut Vec<FieldError>,
) -> Value {
    let Value::Object(changes) = changes else {
        faults.push(FieldError::new(path, "must be an object, such as {\"room\": \"B12\"}"));
        return current.clone();
    };
    let mut merged: Map<String, Value> = current.as_object().cloned().unwrap_or_default();
    for (key, value) in changes {
        // Spaces around a key are nearly always a mistake. Earlier versions accepted such keys, so a stored key is
        // not rejected and can be changed or removed.
        if !is_key(key) && !merged.contains_key(key) {
            faults.push(FieldError::new(
                format!("{path}.{key}"),
                "the key must have 1 to 64 characters, no control characters and no spaces around it",
            ));
        }
        if contains_nul(value) {
            faults.push(FieldError::new(
                format!("{path}.{key}"),
                "contains the control character U+0000",
            ));
        }
        if !is_within_depth(value, OBJECT_LEVELS - 1) {
            let message = format!("is nested deeper than {OBJECT_LEVELS} levels");
            faults.push(FieldError::new(format!("{path}.{key}"), message));
            continue;
        }
        if value.is_null() {
            merged.remove(key);
        } else {
            merged.insert(key.clone(), as_stored(value));
        }
    }
    let merged = Value::Object(merged);
    check_size(path, &merged, faults);
    merged
}

fn is_key(key: &str) -> bool {
    let length = key.chars().count();
    (1..=64).contains(&length) && key.trim() == key && !key.chars().any(char::is_control)
}

/// Adds an error to `faults` if the object is larger than [`OBJECT_BYTES`].
pub(super) fn check_size(path: &str, object: &Value, faults: &mut Vec<FieldError>) {
    let bytes = object.to_string().len();
    if bytes > OBJECT_BYTES {
        faults.push(FieldError::new(
            path,
            format!("would have {bytes} bytes as JSON, at most {OBJECT_BYTES} are allowed"),
        ));
    }
}

/// Returns true if the value nests lists and objects at most `levels` deep.
fn is_within_depth(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(items) => {
            levels > 0 && items.iter().all(|item| is_within_depth(item, levels - 1))
        }
        Value::Object(map) => {
            levels > 0 && map.values().all(|item| is_within_depth(item, levels - 1))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

/// Returns the value in the form in which Postgres returns it. Postgres writes numbers without exponents: it returns
/// 1e16 as an integer. Without this conversion, a later patch with the same number would count as a change.
fn as_stored(value: &Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => number
            .as_f64()
            .filter(|number| number.abs() >= 1e16)
            .and_then(|number| number.to_string().parse().ok())
            .unwrap_or_else(|| value.clone()),
        Value::Array(items) => items.iter().map(as_stored).collect(),
        Value::Object(map) => {
            map.iter().map(|(key, value)| (key.clone(), as_stored(value))).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// Returns true if the value contains a text or key with U+0000, which Postgres cannot store in `jsonb`.
fn contains_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(contains_nul),
        Value::Object(map) => {
            map.iter().any(|(key, value)| key.contains('\0') || contains_nul(value))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_merge_by_key_and_null_removes() {
        let mut faults = Vec::new();
        let merged =
            merge("a", &json!({"x": 1, "y": 2}), &json!({"x": null, "z": [3]}), &mut faults);
        assert_eq!((merged, faults), (json!({"y": 2, "z": [3]}), vec![]));
    }

    #[test]
    fn a_key_of_an_earlier_version_can_stay_and_be_removed_but_not_come() {
        for (current, change, stored, faults) in [
            (json!({" k": 1}), json!({" k": null}), json!({}), 0),
            (json!({" k": 1}), json!({" k": 1}), json!({" k": 1}), 0),
            (json!({}), json!({" k": null}), json!({}), 1),
        ] {
            let mut found = Vec::new();
            assert_eq!(merge("a", &current, &change, &mut found), stored);
            assert_eq!(found.len(), faults, "{change}");
        }
    }

    #[test]
    fn what_is_no_object_or_too_large_is_refused() {
        for bad in [
            json!([1]),
            json!("x"),
            json!({"k": "x".repeat(20_001)}),
            json!({"": 1}),
            json!({"k": "\0"}),
        ] {
            let mut faults = Vec::new();
            merge("a", &json!({}), &bad, &mut faults);
            assert_eq!(faults.len(), 1, "{bad}");
        }
    }
}
