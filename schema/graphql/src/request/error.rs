//! What a client learns of a failure: a code from one list, a sentence, and for bad input each fault with its path.
//!
//! Not `Display`: async-graphql turns whatever is into an error by itself, and the code would be lost.

use std::time::Duration;

use async_graphql::{Enum, ErrorExtensionValues, Name, Value};
use domain::FieldError;

/// The result of a resolver.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// What `extensions.code` of an error may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub enum ErrorCode {
    /// Nobody is signed in, or the token is no longer good.
    Unauthenticated,
    /// The caller may not.
    Forbidden,
    /// There is no such thing in the organization.
    NotFound,
    /// The input is wrong; `extensions.fields` says where.
    Validation,
    /// The state of things forbids it.
    Conflict,
    /// Too many requests; `extensions.retryAfterMs` says when to come back.
    RateLimited,
    /// The document asks for too much.
    QueryTooComplex,
    /// The token budget is spent.
    BudgetExhausted,
    /// The token budget cannot be checked now.
    BudgetUnavailable,
    /// AI triage is off.
    AiDisabled,
    /// Something that SentryOps needs is away; try again.
    DependencyUnavailable,
    /// It took too long.
    Timeout,
    /// A defect of ours; the request id leads to its log line.
    Internal,
}

impl ErrorCode {
    /// The code as clients read it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::Forbidden => "FORBIDDEN",
            Self::NotFound => "NOT_FOUND",
            Self::Validation => "VALIDATION",
            Self::Conflict => "CONFLICT",
            Self::RateLimited => "RATE_LIMITED",
            Self::QueryTooComplex => "QUERY_TOO_COMPLEX",
            Self::BudgetExhausted => "BUDGET_EXHAUSTED",
            Self::BudgetUnavailable => "BUDGET_UNAVAILABLE",
            Self::AiDisabled => "AI_DISABLED",
            Self::DependencyUnavailable => "DEPENDENCY_UNAVAILABLE",
            Self::Timeout => "TIMEOUT",
            Self::Internal => "INTERNAL",
        }
    }
}

/// A failure as a client learns it.
#[derive(Debug, Clone)]
pub struct Error {
    /// From the one list.
    pub code: ErrorCode,
    /// A sentence that says what to do where something can be done.
    pub message: String,
    /// What is wrong with the input.
    pub fields: Vec<FieldError>,
    /// When to come back.
    pub retry_after: Option<Duration>,
}

impl Error {
    /// A failure with nothing to add.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), fields: Vec::new(), retry_after: None }
    }

    /// Too many requests.
    pub(crate) fn rate_limited(retry_after: Duration) -> Self {
        let seconds = retry_after.as_secs_f64().ceil();
        Self {
            retry_after: Some(retry_after),
            ..Self::new(
                ErrorCode::RateLimited,
                format!("Too many requests: try again in {seconds} s."),
            )
        }
    }

    /// The same as the entry of a response, without place and path.
    pub(crate) fn into_graphql(self) -> async_graphql::Error {
        let mut extensions = ErrorExtensionValues::default();
        extensions.set("code", self.code.as_str());
        if let Some(retry_after) = self.retry_after {
            extensions
                .set("retryAfterMs", u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX));
        }
        if !self.fields.is_empty() {
            let fields = self.fields.into_iter().map(|fault| {
                let mut entry = async_graphql::indexmap::IndexMap::new();
                entry.insert(Name::new("path"), Value::from(fault.path));
                entry.insert(Name::new("message"), Value::from(fault.message));
                if let Some(suggestion) = fault.suggestion {
                    entry.insert(Name::new("suggestion"), Value::from(suggestion));
                }
                Value::Object(entry)
            });
            extensions.set("fields", Value::List(fields.collect()));
        }
        let mut error = async_graphql::Error::new(self.message);
        error.extensions = Some(extensions);
        error
    }
}

impl From<Error> for async_graphql::Error {
    fn from(error: Error) -> Self {
        error.into_graphql()
    }
}

impl From<domain::Error> for Error {
    fn from(error: domain::Error) -> Self {
        use domain::Error as Cause;
        match error {
            Cause::NotFound { .. } => Self::new(ErrorCode::NotFound, sentence(&error.to_string())),
            Cause::Invalid(fields) => {
                let message = match fields.as_slice() {
                    [fault] => format!("{}: {}.", fault.path, fault.message),
                    faults => {
                        format!("The input has {} faults: see extensions.fields.", faults.len())
                    }
                };
                Self { fields, ..Self::new(ErrorCode::Validation, message) }
            }
            Cause::Conflict(reason) => Self::new(ErrorCode::Conflict, sentence(&reason)),
            Cause::Forbidden(reason) => Self::new(ErrorCode::Forbidden, sentence(&reason)),
            Cause::BadCredentials => Self::new(ErrorCode::Unauthenticated, error.to_string()),
            Cause::BadToken(reason) => Self::new(ErrorCode::Unauthenticated, sentence(reason)),
            Cause::Busy { retry_after } => Self::rate_limited(retry_after),
            Cause::Postgres(_) if error.is_timeout() => {
                Self::new(ErrorCode::Timeout, "The database took too long: ask for less at once.")
            }
            Cause::Postgres(_) | Cause::Pool(_) if error.is_transient() => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the database is away");
                Self {
                    retry_after: Some(Duration::from_secs(1)),
                    ..Self::new(
                        ErrorCode::DependencyUnavailable,
                        "The database is away: try again.",
                    )
                }
            }
            Cause::Corrupt { .. } | Cause::Crypto(_) | Cause::Postgres(_) | Cause::Pool(_) => {
                internal(&error)
            }
        }
    }
}

/// A defect of ours: logged with its cause, told without.
fn internal(error: &domain::Error) -> Error {
    tracing::error!(error = error as &dyn std::error::Error, "a request failed");
    Error::new(
        ErrorCode::Internal,
        "Something went wrong here; the request id leads to its log line.",
    )
}

/// A reason as a sentence of its own.
fn sentence(reason: &str) -> String {
    let mut letters = reason.chars();
    let first = letters.next().map(char::to_uppercase).into_iter().flatten();
    let stop = if reason.ends_with('.') { "" } else { "." };
    format!("{}{}{stop}", first.collect::<String>(), letters.as_str())
}
