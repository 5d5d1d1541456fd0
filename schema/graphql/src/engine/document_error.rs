//! Refusals before execution, as clients learn them.

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

/// A document that is refused, as an answer.
pub(super) fn refused_at(refusal: &DocumentError) -> Answer {
    let code = match refusal.code {
        Code::Validation => ErrorCode::Validation,
        Code::QueryTooComplex => ErrorCode::QueryTooComplex,
    };
    let mut letters = refusal.message.chars();
    let first = letters.next().map(char::to_uppercase).into_iter().flatten().collect::<String>();
    let mut answer = refused(&Error::new(code, format!("{first}{}.", letters.as_str())));
    answer.response.errors[0].locations = refusal.position.into_iter().collect();
    answer
}

/// A forbidden path as an entry of the response.
pub(super) fn entry(forbidden: Forbidden) -> ServerError {
    let error = match forbidden.need {
        Need::Authentication => Error::new(
            ErrorCode::Unauthenticated,
            format!("{} is for those signed in. {SIGN_IN}", forbidden.field),
        ),
        Need::Permission(permission) => Error::new(
            ErrorCode::Forbidden,
            format!(
                "{} takes the permission {permission}, which you do not have in this organization.",
                forbidden.field
            ),
        ),
    };
    let mut entry = error.into_graphql().into_server_error(forbidden.location);
    entry.path = forbidden.path.into_iter().map(PathSegment::Field).collect();
    entry
}
