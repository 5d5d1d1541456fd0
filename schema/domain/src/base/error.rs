//! What can go wrong below the API: one enum, translated once at the top of each process.
//!
//! Constraints are named in SQL and given their sentence here, so the database holds the truth and people read words.

use tokio_postgres::error::SqlState;

use crate::base::id::ParseIdError;

/// The result of a domain function.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One thing wrong with an input: where, what, and what to do instead where we can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// The path to the value, e.g. `input.attributes.os_name`.
    pub path: String,
    /// What is wrong, as a sentence without a full stop.
    pub message: String,
    /// What was probably meant.
    pub suggestion: Option<String>,
}

impl FieldError {
    /// A fault at a path, without a suggestion.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), suggestion: None }
    }
}

/// What a domain function could not do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such row in this organization.
    #[error("there is no {what} {id}")]
    NotFound {
        /// What was looked for, e.g. `asset`.
        what: &'static str,
        /// The id as the caller gave it.
        id: String,
    },
    /// Bad input; all its faults at once.
    #[error("invalid input: {}", .0.iter().map(|fault| fault.message.as_str()).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<FieldError>),
    /// The state of things forbids it.
    #[error("{0}")]
    Conflict(String),
    /// The caller may not do this to this object, whatever its permissions say in general.
    #[error("{0}")]
    Forbidden(String),
    /// Sign-in failed; deliberately says no more.
    #[error("Invalid email or password.")]
    BadCredentials,
    /// A token that is expired, revoked, forged or not ours.
    #[error("{0}")]
    BadToken(&'static str),
    /// Too much at once; come back later.
    #[error("too many requests")]
    Busy {
        /// When to try again.
        retry_after: std::time::Duration,
    },
    /// A stored value does not mean anything to us.
    #[error("{table}.{column} holds a value that this version does not know")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
    },
    /// A statement failed.
    #[error("a database statement failed")]
    Postgres(#[source] tokio_postgres::Error),
    /// No connection to be had.
    #[error("no database connection")]
    Pool(#[source] deadpool_postgres::PoolError),
    /// The operating system gave no randomness, or a key is unusable.
    #[error("a cryptographic operation failed: {0}")]
    Crypto(&'static str),
}

impl Error {
    /// One fault in the input.
    pub fn invalid(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError::new(path, message)])
    }

    /// The same, with the paths of its faults below `parent`.
    #[must_use]
    pub fn within(self, parent: &str) -> Self {
        let Self::Invalid(faults) = self else { return self };
        let below =
            |fault: FieldError| FieldError { path: format!("{parent}.{}", fault.path), ..fault };
        Self::Invalid(faults.into_iter().map(below).collect())
    }

    /// No such `what` as `id`.
    pub fn not_found(what: &'static str, id: impl std::fmt::Display) -> Self {
        Self::NotFound { what, id: format!("{id}") }
    }

    /// The sentence for people where this is the violation of that constraint: said beside the one statement that may violate it.
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

    /// Whether the same call may succeed later: the database is away, or the transaction lost a race.
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
                            // Another read of the request failed, and says why.
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

    /// Whether a statement ran into its time limit, or waited too long for a lock.
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
        let sentence = error.as_db_error().and_then(|db| db.constraint()).and_then(sentence_of);
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

/// What the violation of a named constraint means to people, where several statements may violate it. Where one may, it says so
/// itself: see [`Error::on_constraint`].
fn sentence_of(constraint: &str) -> Option<&'static str> {
    Some(match constraint {
        "role_key_key" => "a role with this key exists already",
        "user_email_key" => "a user with this e-mail exists already",
        "membership_pkey" => "this user is a member of the organization already",
        "membership_keeps_owner" => {
            "an organization keeps at least one active owner: make somebody else owner first"
        }
        "membership_role_role_fkey" => "the role is still held by members: take it from them first",
        "asset_external_id_key" => "another asset has this external id",
        "asset_owner_fkey" => "the owner is not a member of this organization",
        "asset_code_key" => "another asset has this code",
        "asset_tag_tag_fkey" => "a tag was deleted meanwhile: look at the tags again",
        "dependency_source_target_key" => {
            "the source needs this target already: remove that dependency to say it anew"
        }
        "custody_holder_fkey" => "the holder is not a member of this organization",
        "schedule_name_key" => "a schedule of this name was made meanwhile: save it again",
        "job_unique_idx" => {
            "another job of this kind and key waits already: it does what this one would"
        }
        _ => return None,
    })
}
