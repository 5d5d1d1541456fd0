//! Errors as clients receive them: a code, a message, and for invalid input the path and message of each invalid value.
//!
//! [`Error`] does not implement `Display`: async-graphql would convert it automatically and drop the code.

use std::time::Duration;

use async_graphql::{Enum, ErrorExtensionValues, Name, Value};
use domain::FieldError;
use jobs::Decision;

/// Result of a resolver.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Code of an error, in its `extensions.code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub enum ErrorCode {
    /// The credentials or the token are missing, wrong, expired or revoked.
    Unauthenticated,
    /// The caller is not allowed to do this; the message names the missing permission or the reason.
    Forbidden,
    /// The object does not exist in the caller's organization.
    NotFound,
    /// The document or its input is invalid; `extensions.fields` lists the invalid input values.
    Validation,
    /// The current state of the data does not allow the change.
    Conflict,
    /// Too many requests; retry after `extensions.retryAfterMs` milliseconds.
    RateLimited,
    /// The document exceeds a limit on size, depth or cost.
    QueryTooComplex,
    /// The LLM token budget is used up.
    BudgetExhausted,
    /// The LLM token budget cannot be checked at the moment.
    BudgetUnavailable,
    /// AI triage of incidents is turned off.
    AiDisabled,
    /// A service that SentryOps depends on is unavailable; retry the request.
    DependencyUnavailable,
    /// The request exceeded its time limit.
    Timeout,
    /// Defect of the server. The server's log describes the error under the request id.
    Internal,
}

impl ErrorCode {
    /// Returns the code as clients receive it, in upper case.
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

/// An error as clients receive it.
#[derive(Debug, Clone)]
pub struct Error {
    /// Error code, evaluated by programs.
    pub code: ErrorCode,
    /// Message for people, with the remedy if one is known.
    pub message: String,
    /// Errors of the input values, each with its path; empty for other codes.
    pub fields: Vec<FieldError>,
    /// Time to wait before a retry; `None` if waiting does not help.
    pub retry_after: Option<Duration>,
}

impl Error {
    /// Creates an error with a code and a message only.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), fields: Vec::new(), retry_after: None }
    }

    /// Creates the error for a fault of the server, which its log describes.
    pub(crate) fn internal() -> Self {
        Self::new(
            ErrorCode::Internal,
            "An internal error occurred: the server's log describes it under this request id.",
        )
    }

    /// Returns `RATE_LIMITED` if the limiter refused.
    pub(crate) fn of_decision(decision: Decision) -> Result<()> {
        match decision {
            Decision::Allowed => Ok(()),
            Decision::Refused { retry_after } => Err(Self::rate_limited(retry_after)),
        }
    }

    /// Creates a `RATE_LIMITED` error that names the time to wait, rounded up to seconds.
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

    /// Converts the error to an entry of a response, without location and path.
    pub(crate) fn into_graphql(self) -> async_graphql::Error {
        let mut extensions = ErrorExtensionValues::default();
        extensions.set("code", self.code.as_str());
        if let Some(retry_after) = self.retry_after {
            // Rounded up, because a client that retries too early is refused again.
            let ms = retry_after.as_nanos().div_ceil(1_000_000);
            extensions.set("retryAfterMs", u64::try_from(ms).unwrap_or(u64::MAX));
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
                        format!("The input has {} errors: see extensions.fields.", faults.len())
                    }
                };
                Self { fields, ..Self::new(ErrorCode::Validation, message) }
            }
            Cause::Conflict(reason) => Self::new(ErrorCode::Conflict, sentence(&reason)),
            Cause::Forbidden(reason) => Self::new(ErrorCode::Forbidden, sentence(&reason)),
            Cause::BadCredentials => Self::new(ErrorCode::Unauthenticated, error.to_string()),
            Cause::BadToken(reason) => Self::new(ErrorCode::Unauthenticated, sentence(reason)),
            Cause::Busy { retry_after } => Self::rate_limited(retry_after),
            Cause::Postgres(_) if error.is_timeout() => Self::new(
                ErrorCode::Timeout,
                "The database took too long: request less data at a time.",
            ),
            Cause::Postgres(_) | Cause::Pool(_) if error.is_transient() => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the database is unavailable"
                );
                Self {
                    retry_after: Some(Duration::from_secs(1)),
                    ..Self::new(
                        ErrorCode::DependencyUnavailable,
                        "The database is unavailable: try again.",
                    )
                }
            }
            Cause::Corrupt { .. } | Cause::Crypto(_) | Cause::Postgres(_) | Cause::Pool(_) => {
                internal(&error)
            }
        }
    }
}

/// Logs a defect with its cause, and returns an error that does not reveal the cause.
fn internal(error: &domain::Error) -> Error {
    tracing::error!(error = error as &dyn std::error::Error, "a request failed");
    Error::internal()
}

/// Formats a reason as a sentence: capitalized, with a full stop.
fn sentence(reason: &str) -> String {
    let mut characters = reason.chars();
    let first = characters.next().map(char::to_uppercase).into_iter().flatten();
    let stop = if reason.ends_with('.') { "" } else { "." };
    format!("{}{}{stop}", first.collect::<String>(), characters.as_str())
}
