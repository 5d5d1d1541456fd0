//! Errors of documents that are rejected before execution, as clients receive them.

use async_graphql::{PathSegment, ServerError};

use crate::{
    document::{
        authorize::{Forbidden, Need},
        error::{Code, DocumentError},
    },
    request::{
        answer::{Answer, refused},
        context::SIGN_IN,
        error::{Error, ErrorCode},
    },
};

/// Creates the answer to a rejected document.
pub(super) fn answer_to(error: &DocumentError) -> Answer {
    let code = match error.code {
        Code::Validation => ErrorCode::Validation,
        Code::QueryTooComplex => ErrorCode::QueryTooComplex,
    };
    let mut characters = error.message.chars();
    let first = characters.next().map(char::to_uppercase).into_iter().flatten().collect::<String>();
    let mut answer = refused(&Error::new(code, format!("{first}{}.", characters.as_str())));
    answer.response.errors[0].locations = error.position.into_iter().collect();
    answer
}

/// Converts a forbidden field to an entry of `errors` in the response.
pub(super) fn entry(forbidden: Forbidden) -> ServerError {
    let error = match forbidden.need {
        Need::Authentication => Error::new(
            ErrorCode::Unauthenticated,
            format!("{} requires you to be signed in. {SIGN_IN}", forbidden.field),
        ),
        Need::Permission(permission) => Error::new(
            ErrorCode::Forbidden,
            format!(
                "{} requires the permission {permission}, which you do not have in this organization.",
                forbidden.field
            ),
        ),
    };
    let mut entry = error.into_graphql().into_server_error(forbidden.location);
    entry.path = forbidden.path.into_iter().map(PathSegment::Field).collect();
    entry
}
