//! What came of a document: a response, and whether anything ran.

use async_graphql::{Response, ServerError, Value};

use crate::request::error::{Error, ErrorCode};

/// What came of a document. `executed: false` is a request error: it is sent without a `data` entry.
pub struct Answer {
    /// The response.
    pub response: Response,
    /// Whether any resolver ran.
    pub executed: bool,
}

/// An answer to a request that was not executed.
pub fn refused(error: &Error) -> Answer {
    let error = error.clone().into_graphql().into_server_error(async_graphql::Pos::default());
    let error = ServerError { locations: Vec::new(), ..error };
    Answer { response: Response::from_errors(vec![error]), executed: false }
}

/// An error of a resolver has a path; without one the document itself did not fit the schema and nothing ran.
pub(crate) fn has_run(response: &Response) -> bool {
    response.data != Value::Null || response.errors.iter().any(|error| !error.path.is_empty())
}

/// Whether a limit refused all that was asked for; of a single root field that means that nothing ran, and transports
/// have a status for that.
pub(crate) fn is_limited(response: &Response) -> bool {
    let is_limit = |error| code(error) == Some(ErrorCode::RateLimited.as_str());
    response.data == Value::Null
        && !response.errors.is_empty()
        && response.errors.iter().all(is_limit)
}

/// The code of an error.
pub(crate) fn code(error: &ServerError) -> Option<&str> {
    match error.extensions.as_ref()?.get("code")? {
        Value::String(code) => Some(code),
        _ => None,
    }
}

/// Gives every error a code, and names the request.
pub(crate) fn sign(response: &mut Response, request_id: &str) {
    for error in &mut response.errors {
        let extensions = error.extensions.get_or_insert_default();
        if extensions.get("code").is_none() {
            // What async-graphql itself refuses: a document or a value that does not fit the schema.
            extensions.set("code", ErrorCode::Validation.as_str());
        }
        extensions.set("requestId", request_id);
    }
}
