//! Errors of all layers below the API. One enum, which the outermost layer of each process translates once.
//!
//! The database enforces rules by named constraints. This file maps the violation of a constraint to a message for
//! users.

use tokio_postgres::error::SqlState;

use crate::base::id::ParseIdError;

/// The result of a domain function.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error in one input value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// The path to the value, e.g. `input.attributes.os_name`.
    pub path: String,
    /// The message, without a full stop, e.g. `must not be empty`.
    pub message: String,
    /// The value that was probably meant, or the valid values; `None` if no suggestion is known.
    pub suggestion: Option<String>,
}

impl FieldError {
    /// Returns an error at a path, without a suggestion.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), suggestion: None }
    }
}

/// Reason why a domain function failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The organization has no such row.
    #[error("there is no {what} {id}")]
    NotFound {
        /// Noun of the missing row, e.g. `asset`.
        what: &'static str,
        /// The id, as given by the caller.
        id: String,
    },
    /// Invalid input, with the errors of all values.
    #[error("invalid input: {}", .0.iter().map(|fault| fault.message.as_str()).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<FieldError>),
    /// The current state does not allow the operation.
    #[error("{0}")]
    Conflict(String),
    /// The caller is not allowed to perform this operation on this object, even with the required permission.
    #[error("{0}")]
    Forbidden(String),
    /// Sign-in failed. The reason is deliberately not disclosed.
    #[error("Invalid email or password.")]
    BadCredentials,
    /// A bearer or refresh token that is expired, revoked, forged or unknown.
    #[error("{0}")]
    BadToken(&'static str),
    /// Too many requests; the caller must wait.
    #[error("too many requests")]
    Busy {
        /// Time to wait before the next attempt.
        retry_after: std::time::Duration,
    },
    /// A stored value that this version does not know.
    #[error("{table}.{column} holds a value that this version does not know")]
    Corrupt {
        /// Table that holds the value.
        table: &'static str,
        /// Column that holds the value.
        column: &'static str,
    },
    /// A failed database statement, with the driver's error.
    #[error("a database statement failed")]
    Postgres(#[source] tokio_postgres::Error),
    /// No database connection could be obtained.
    #[error("no database connection")]
    Pool(#[source] deadpool_postgres::PoolError),
    /// The operating system returned no randomness, or a key is unusable.
    #[error("a cryptographic operation failed: {0}")]
    Crypto(&'static str),
}

impl Error {
    /// Returns `Invalid` with one error.
    pub fn invalid(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError::new(path, message)])
    }

    /// Returns the error with the paths of its field errors below `parent`. Errors other than `Invalid` are returned
    /// unchanged.
    #[must_use]
    pub fn within(self, parent: &str) -> Self {
        let Self::Invalid(faults) = self else { return self };
        let below =
            |fault: FieldError| FieldError { path: format!("{parent}.{}", fault.path), ..fault };
        Self::Invalid(faults.into_iter().map(below).collect())
    }

    /// Returns `NotFound` for a type of row (`what`, e.g. `asset`) and an id.
    pub fn not_found(what: &'static str, id: impl std::fmt::Display) -> Self {
        Self::NotFound { what, id: format!("{id}") }
    }

    /// Returns `Conflict` with this message if the error is a violation of the constraint, else the error unchanged.
    /// For constraints that only one statement can violate; others are mapped in this file.
    #[must_use]
    pub fn on_constraint(self, constraint: &str, sentence: &str) -> Self {
        let violated = |error: &tokio_postgres::Error| {
            error.as_db_error().and_then(|db| db.constraint()) == Some(constraint)
        };
        if matches!(&self, Self::Postgres(error) if violated(error)) {
            return Self::Conflict(sentence.to_owned());
        }
        self
    }

    /// Returns true if a retry of the same call may succeed: the database was unavailable, or a concurrent transaction
    /// caused a deadlock or serialization failure.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Pool(_) | Self::Busy { .. } => true,
            Self::Postgres(error) => {
                let cause = std::error::Error::source(error);
                let is_broken = || cause.is_some_and(<dyn std::error::Error>::is::<std::io::Error>);
                error.is_closed()
                    || error.code().map_or_else(is_broken, |code| {
                        *code == SqlState::T_R_SERIALIZATION_FAILURE
                            || *code == SqlState::T_R_DEADLOCK_DETECTED
                            || *code == SqlState::ADMIN_SHUTDOWN
                            || *code == SqlState::CRASH_SHUTDOWN
                            || *code == SqlState::CANNOT_CONNECT_NOW
                            || *code == SqlState::TOO_MANY_CONNECTIONS
                            || *code == SqlState::DISK_FULL
                            || *code == SqlState::READ_ONLY_SQL_TRANSACTION
                            // An earlier statement of the transaction failed and reported the cause.
                            || *code == SqlState::IN_FAILED_SQL_TRANSACTION
                    })
            }
            Self::NotFound { .. }
            | Self::Invalid(_)
            | Self::Conflict(_)
            | Self::Forbidden(_)
            | Self::BadCredentials
            | Self::BadToken(_)
            | Self::Corrupt { .. }
            | Self::Crypto(_) => false,
        }
    }

    /// Returns true if a statement exceeded its time limit or waited too long for a lock.
    pub fn is_timeout(&self) -> bool {
        let Self::Postgres(error) = self else { return false };
        [SqlState::QUERY_CANCELED, SqlState::LOCK_NOT_AVAILABLE]
            .iter()
            .any(|state| error.code() == Some(state))
    }
}

impl From<deadpool_postgres::PoolError> for Error {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        match error {
            deadpool_postgres::PoolError::Backend(error) => Self::Postgres(error),
            other => Self::Pool(other),
        }
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        let sentence = error.as_db_error().and_then(|db| db.constraint()).and_then(message_of);
        match sentence {
            Some(sentence) => Self::Conflict(sentence.to_owned()),
            None => Self::Postgres(error),
        }
    }
}

impl From<ParseIdError> for Error {
    fn from(error: ParseIdError) -> Self {
        Self::invalid("id", error.to_string())
    }
}

/// Returns the message for the violation of a constraint that several statements can violate. For a constraint that
/// only one statement can violate, that statement calls [`Error::on_constraint`] instead.
fn message_of(constraint: &str) -> Option<&'static str> {
    Some(match constraint {
        "role_key_key" => "a role with this key already exists",
        "user_email_key" => "a user with this e-mail already exists",
        "membership_pkey" => "this user is already a member of the organization",
        "membership_keeps_owner" => {
            "an organization needs at least one active owner: make another member an owner first"
        }
        "membership_role_role_fkey" => {
            "members still have this role: remove the role from all members first"
        }
        "asset_external_id_key" => "another asset has this external id",
        "asset_owner_fkey" => "the owner is not a member of this organization",
        "asset_code_key" => "another asset has this code",
        "asset_tag_tag_fkey" => "a tag was deleted in the meantime: reload the tags and try again",
        "dependency_source_target_key" => {
            "the source already depends on this target: delete that dependency before you create it again"
        }
        "custody_holder_fkey" => "the holder is not a member of this organization",
        "schedule_name_key" => {
            "a schedule with this name was just created: save the schedule again"
        }
        "job_unique_idx" => {
            "a job with the same kind and key is already waiting: it will do the same work"
        }
        _ => return None,
    })
}
