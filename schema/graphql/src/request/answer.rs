//! The answer to a GraphQL request: the response, and whether any resolver ran.

use async_graphql::{Response, ServerError, Value};

use crate::request::error::{Error, ErrorCode};

/// The answer to a GraphQL request. With `executed: false` the answer is a request error, which transports send without
/// a `data` entry.
pub struct Answer {
    /// Response with data and errors.
    pub response: Response,
    /// True if any resolver ran.
    pub executed: bool,
}

/// Creates the answer to a request that was rejected before execution.
pub fn refused(error: &Error) -> Answer {
    let error = error.clone().into_graphql().into_server_error(async_graphql::Pos::default());
    let error = ServerError { locations: Vec::new(), ..error };
    Answer { response: Response::from_errors(vec![error]), executed: false }
}

/// Returns true if any resolver ran. A resolver's error has a path; an error without a path means that the document did
/// not match the schema, so nothing ran.
pub(crate) fn has_run(response: &Response) -> bool {
    response.data != Value::Null || response.errors.iter().any(|error| !error.path.is_empty())
}

/// Returns true if there is no data and every error is a rate limit. With a single root field this means that no change
/// was made, and transports then use a separate status (HTTP 429).
pub(crate) fn is_limited(response: &Response) -> bool {
    let is_limit = |error| code(error) == Some(ErrorCode::RateLimited.as_str());
    response.data == Value::Null
        && !response.errors.is_empty()
        && response.errors.iter().all(is_limit)
}

/// Returns the `extensions.code` of an error.
pub(crate) fn code(error: &ServerError) -> Option<&str> {
    match error.extensions.as_ref()?.get("code")? {
        Value::String(code) => Some(code),
        _ => None,
    }
}

/// Sets the request id on every error, and `VALIDATION` on errors without a code.
pub(crate) fn add_request_id(response: &mut Response, request_id: &str) {
    for error in &mut response.errors {
        let extensions = error.extensions.get_or_insert_default();
        if extensions.get("code").is_none() {
            // Errors that async-graphql creates have no code. They report that the document or a value does not match
            // the schema.
            extensions.set("code", ErrorCode::Validation.as_str());
        }
        extensions.set("requestId", request_id);
    }
}
