//! What a GraphQL request says: `query`, `operationName`, `variables`, `extensions`, out of a body or a query string.
//!
//! Read strictly: one JSON object, no key twice (two readers of the same bytes must not see two requests), no batches.
//! Unknown keys and the content of `extensions` are ignored: clients send them, and none of them changes what we do.

use async_graphql::Variables;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::refusal::Refusal;

/// A request's parameters, of the right types; the document has not been looked at.
#[derive(Debug)]
pub(crate) struct Params {
    pub(crate) query: String,
    pub(crate) operation_name: Option<String>,
    pub(crate) variables: Variables,
}

/// The parameters before their types are checked, so that each can be named in its refusal.
#[derive(Default, Deserialize)]
pub(crate) struct Raw {
    query: Option<Value>,
    #[serde(rename = "operationName")]
    operation_name: Option<Value>,
    variables: Option<Value>,
    extensions: Option<Value>,
}

impl Params {
    /// Out of the body of a POST.
    ///
    /// # Errors
    /// 400, with line and column where the bytes are not JSON.
    pub(crate) fn from_body(body: &[u8]) -> Result<Self, Refusal> {
        let text = std::str::from_utf8(body).map_err(|error| {
            Refusal::malformed(format!("The body is not UTF-8 (byte {}).", error.valid_up_to() + 1))
        })?;
        match text.trim_start().bytes().next() {
            Some(b'[') => {
                return Err(Refusal::malformed(
                    "The body is a list: requests are not batched here, send one object.",
                ));
            }
            Some(b'{') => {}
            Some(_) => return Err(Refusal::malformed("The body must be a JSON object.")),
            None => return Err(Refusal::malformed("The body is empty; it must be a JSON object.")),
        }
        let raw: Raw = serde_json::from_str(text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            Refusal::malformed(if error.is_data() {
                format!("The body names a parameter twice (line {line}, column {column}).")
            } else {
                format!("The body is not valid JSON (line {line}, column {column}).")
            })
        })?;
        raw.check()
    }

    /// Out of the query string of a GET; `variables` and `extensions` are JSON in it.
    ///
    /// # Errors
    /// 400 for a parameter that is absent, there twice, or not readable.
    pub(crate) fn from_query(query: &str) -> Result<Self, Refusal> {
        let mut raw = Raw::default();
        for pair in pairs(query) {
            let (name, value) = pair?;
            let (slot, is_json) = match name.as_str() {
                "query" => (&mut raw.query, false),
                "operationName" => (&mut raw.operation_name, false),
                "variables" => (&mut raw.variables, true),
                "extensions" => (&mut raw.extensions, true),
                _ => continue,
            };
            if slot.is_some() {
                return Err(Refusal::malformed(format!("`{name}` is there twice.")));
            }
            let value = value()?;
            *slot = Some(if is_json {
                serde_json::from_str(&value).map_err(|error| {
                    Refusal::malformed(format!(
                        "`{name}` is not valid JSON (line {}, column {}).",
                        error.line(),
                        error.column()
                    ))
                })?
            } else {
                Value::String(value)
            });
        }
        raw.check()
    }
}

impl Raw {
    /// The parameters, if each has its type.
    ///
    /// # Errors
    /// 400 for one that is absent or of another type.
    pub(crate) fn check(self) -> Result<Params, Refusal> {
        let query = match self.query {
            Some(Value::String(query)) => query,
            None => return Err(Refusal::malformed("`query` is missing.")),
            Some(_) => return Err(Refusal::malformed("`query` must be a string.")),
        };
        let operation_name = match self.operation_name {
            Some(Value::String(name)) => Some(name),
            None | Some(Value::Null) => None,
            Some(_) => return Err(Refusal::malformed("`operationName` must be a string.")),
        };
        object("extensions", self.extensions)?;
        let variables = Value::Object(object("variables", self.variables)?);
        Ok(Params { query, operation_name, variables: Variables::from_json(variables) })
    }
}

/// The names of a query string, each with what reads its value.
pub(crate) fn pairs(
    query: &str,
) -> impl Iterator<Item = Result<(String, impl Fn() -> Result<String, Refusal>), Refusal>> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decode(name).ok_or_else(unreadable)?;
        Ok((name, move || decode(value).ok_or_else(unreadable)))
    })
}

fn object(name: &str, value: Option<Value>) -> Result<Map<String, Value>, Refusal> {
    match value {
        Some(Value::Object(object)) => Ok(object),
        None | Some(Value::Null) => Ok(Map::new()),
        Some(_) => Err(Refusal::malformed(format!("`{name}` must be an object."))),
    }
}

fn unreadable() -> Refusal {
    Refusal::malformed("The query string is not percent-encoded UTF-8.")
}

/// `application/x-www-form-urlencoded`, but strict: a lone `%` or invalid UTF-8 is an error, not U+FFFD.
fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> Result<Params, String> {
        Params::from_body(text.as_bytes()).map_err(|refusal| refusal.to_string())
    }

    fn query(text: &str) -> Result<Params, String> {
        Params::from_query(text).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn a_body_is_one_object_with_the_right_types() {
        let params = body(r#" {"query":"{a}","operationName":null,"variables":{"n":1},"id":7} "#);
        let params = params.unwrap();
        assert_eq!(params.query, "{a}");
        assert_eq!(params.operation_name, None);
        assert_eq!(params.variables.len(), 1);
        for (text, expected) in [
            ("", "The body is empty; it must be a JSON object."),
            ("7", "The body must be a JSON object."),
            ("[{}]", "The body is a list: requests are not batched here, send one object."),
            ("{", "The body is not valid JSON (line 1, column 1)."),
            ("{\n  \"query\": }", "The body is not valid JSON (line 2, column 12)."),
            (r#"{"query":"a"} x"#, "The body is not valid JSON (line 1, column 15)."),
            ("{}", "`query` is missing."),
            (r#"{"query":null}"#, "`query` is missing."),
            (r#"{"query":["{a}"]}"#, "`query` must be a string."),
            (
                r#"{"query":"a","query":"b"}"#,
                "The body names a parameter twice (line 1, column 20).",
            ),
            (r#"{"query":"a","operationName":0}"#, "`operationName` must be a string."),
            (r#"{"query":"a","variables":[]}"#, "`variables` must be an object."),
            (r#"{"query":"a","extensions":false}"#, "`extensions` must be an object."),
        ] {
            assert_eq!(body(text).unwrap_err(), expected, "{text}");
        }
        assert_eq!(
            Params::from_body(b"{\"query\":\"\xff\"}").unwrap_err().to_string(),
            "The body is not UTF-8 (byte 11)."
        );
    }

    #[test]
    fn a_query_string_is_read_strictly() {
        let params = query("query=%7Ba%7D&operationName=A+b&variables=%7B%22x%22:1%7D&other=1");
        let params = params.unwrap();
        assert_eq!(params.query, "{a}");
        assert_eq!(params.operation_name.as_deref(), Some("A b"));
        assert_eq!(params.variables.len(), 1);
        for (text, expected) in [
            ("", "`query` is missing."),
            ("query=a&query=b", "`query` is there twice."),
            ("query=a&variables=%7B", "`variables` is not valid JSON (line 1, column 1)."),
            ("query=a&variables=[]", "`variables` must be an object."),
            ("query=%7", "The query string is not percent-encoded UTF-8."),
            ("query=%zz", "The query string is not percent-encoded UTF-8."),
            ("query=%ff", "The query string is not percent-encoded UTF-8."),
        ] {
            assert_eq!(query(text).unwrap_err(), expected, "{text}");
        }
    }
}
