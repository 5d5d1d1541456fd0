//! Parameters of a GraphQL request: `query`, `operationName`, `variables`, `extensions`, from a body or a query string.
//!
//! Parsing is strict: one JSON object, no batches, no duplicate keys (different parsers could otherwise read different
//! requests from the same bytes). Unknown keys and the content of `extensions` are accepted and ignored, because common
//! clients send them.

use async_graphql::Variables;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::request_error::RequestError;

/// Parameters of a request with checked types; the GraphQL document has not been parsed yet.
#[derive(Debug)]
pub(crate) struct Params {
    pub(crate) query: String,
    pub(crate) operation_name: Option<String>,
    pub(crate) variables: Variables,
}

/// Parameters whose types have not been checked. The check is separate, so that its errors can name the parameter.
#[derive(Default, Deserialize)]
pub(crate) struct RawParams {
    query: Option<Value>,
    #[serde(rename = "operationName")]
    operation_name: Option<Value>,
    variables: Option<Value>,
    extensions: Option<Value>,
}

impl Params {
    /// Reads the parameters from the body of a POST.
    ///
    /// # Errors
    /// 400; the message has line and column if the body is not valid JSON.
    pub(crate) fn from_body(body: &[u8]) -> Result<Self, RequestError> {
        let text = std::str::from_utf8(body).map_err(|error| {
            RequestError::malformed(format!(
                "The body is not UTF-8 (byte {}).",
                error.valid_up_to() + 1
            ))
        })?;
        match text.trim_start().bytes().next() {
            Some(b'[') => {
                return Err(RequestError::malformed(
                    "The body is a list: batching is not supported, send one JSON object.",
                ));
            }
            Some(b'{') => {}
            Some(_) => return Err(RequestError::malformed("The body must be a JSON object.")),
            None => {
                return Err(RequestError::malformed(
                    "The body is empty; it must be a JSON object.",
                ));
            }
        }
        let raw: RawParams = serde_json::from_str(text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            RequestError::malformed(if error.is_data() {
                format!("The body names a parameter twice (line {line}, column {column}).")
            } else {
                format!("The body is not valid JSON (line {line}, column {column}).")
            })
        })?;
        raw.check()
    }

    /// Reads the parameters from the query string of a GET, where `variables` and `extensions` are JSON.
    ///
    /// # Errors
    /// 400 for a parameter that is missing, repeated, or not decodable.
    pub(crate) fn from_query(query: &str) -> Result<Self, RequestError> {
        let mut raw = RawParams::default();
        for pair in pairs(query) {
            let (name, value) = pair?;
            let (target, is_json) = match name.as_str() {
                "query" => (&mut raw.query, false),
                "operationName" => (&mut raw.operation_name, false),
                "variables" => (&mut raw.variables, true),
                "extensions" => (&mut raw.extensions, true),
                _ => continue,
            };
            if target.is_some() {
                return Err(RequestError::malformed(format!("`{name}` is given twice.")));
            }
            let value = value()?;
            *target = Some(if is_json {
                serde_json::from_str(&value).map_err(|error| {
                    RequestError::malformed(format!(
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

impl RawParams {
    /// Checks the type of each parameter and returns the parameters.
    ///
    /// # Errors
    /// 400 for a parameter that is missing or has the wrong type.
    pub(crate) fn check(self) -> Result<Params, RequestError> {
        let query = match self.query {
            Some(Value::String(query)) => query,
            None => return Err(RequestError::malformed("`query` is missing.")),
            Some(_) => return Err(RequestError::malformed("`query` must be a string.")),
        };
        let operation_name = match self.operation_name {
            Some(Value::String(name)) => Some(name),
            None | Some(Value::Null) => None,
            Some(_) => return Err(RequestError::malformed("`operationName` must be a string.")),
        };
        object("extensions", self.extensions)?;
        let variables = Value::Object(object("variables", self.variables)?);
        Ok(Params { query, operation_name, variables: Variables::from_json(variables) })
    }
}

/// Iterates over the parameters of a query string. Each item is a decoded name and a function that decodes the value.
pub(crate) fn pairs(
    query: &str,
) -> impl Iterator<Item = Result<(String, impl Fn() -> Result<String, RequestError>), RequestError>>
{
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decode(name).ok_or_else(unreadable)?;
        Ok((name, move || decode(value).ok_or_else(unreadable)))
    })
}

fn object(name: &str, value: Option<Value>) -> Result<Map<String, Value>, RequestError> {
    match value {
        Some(Value::Object(object)) => Ok(object),
        None | Some(Value::Null) => Ok(Map::new()),
        Some(_) => Err(RequestError::malformed(format!("`{name}` must be an object."))),
    }
}

fn unreadable() -> RequestError {
    RequestError::malformed("The query string is not percent-encoded UTF-8.")
}

/// Decodes `application/x-www-form-urlencoded` strictly: returns `None` for an incomplete escape or invalid UTF-8,
/// instead of inserting U+FFFD.
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
        Params::from_body(text.as_bytes()).map_err(|error| error.to_string())
    }

    fn query(text: &str) -> Result<Params, String> {
        Params::from_query(text).map_err(|error| error.to_string())
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
            ("[{}]", "The body is a list: batching is not supported, send one JSON object."),
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
            ("query=a&query=b", "`query` is given twice."),
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
