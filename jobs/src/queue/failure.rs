//! Failures that handlers return. The variant decides what happens to the job.

use std::time::Duration;

use tokio_postgres::error::SqlState;

/// Failure of an attempt: its reason, and what happens to the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The job is retried after a backoff. After its last attempt, it is buried (dead-lettered).
    Retry {
        /// Reason that is shown to users.
        reason: String,
        /// Wait that a remote service requested (`Retry-After`), added to the backoff; `None` if none was requested.
        after: Option<Duration>,
    },
    /// The job cannot succeed. It is buried immediately.
    Abort {
        /// Reason that is shown to users.
        reason: String,
    },
    /// The job cannot run now, because of a limit, a budget or an unavailable service. It is retried without using up
    /// an attempt.
    Snooze {
        /// Reason that is shown to users.
        reason: String,
        /// Time until the next attempt.
        after: Duration,
    },
    /// The job's actor no longer has the permission. The job is cancelled, with an entry in the audit trail.
    Denied {
        /// Reason that is shown to users.
        reason: String,
    },
}

impl Failure {
    /// Returns a failure after which the job is retried, after a backoff.
    pub fn retry(reason: impl Into<String>) -> Self {
        Self::Retry { reason: reason.into(), after: None }
    }

    /// Returns a failure after which the job is buried immediately.
    pub fn abort(reason: impl Into<String>) -> Self {
        Self::Abort { reason: reason.into() }
    }

    /// Returns a failure after which the job is retried after this time, without using up an attempt.
    pub fn snooze(reason: impl Into<String>, after: Duration) -> Self {
        Self::Snooze { reason: reason.into(), after }
    }
}

/// Returns true if the handler itself caused the error: it continued after a failed statement, or wrote in a read-only
/// transaction.
fn is_handler_error(cause: &tokio_postgres::Error) -> bool {
    [SqlState::IN_FAILED_SQL_TRANSACTION, SqlState::READ_ONLY_SQL_TRANSACTION]
        .iter()
        .any(|state| cause.code() == Some(state))
}

/// Returns true if the statement lost against a concurrent transaction: a deadlock, a serialization failure or a lock
/// timeout. Neither transaction is wrong.
fn is_lost_conflict(cause: &tokio_postgres::Error) -> bool {
    [
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::LOCK_NOT_AVAILABLE,
    ]
    .iter()
    .any(|state| cause.code() == Some(state))
}

/// Wait before the next attempt while the database is unavailable, or after a conflict with a concurrent transaction.
const UNAVAILABLE_DELAY: Duration = Duration::from_secs(1);

impl From<domain::Error> for Failure {
    fn from(error: domain::Error) -> Self {
        use domain::Error as Cause;
        // The cause is logged. Users read the reason, which names no table.
        let reason = error.to_string();
        match &error {
            Cause::NotFound { .. } | Cause::Invalid(_) | Cause::Forbidden(_) => {
                Self::Abort { reason }
            }
            Cause::Busy { retry_after } => Self::Snooze { reason, after: *retry_after },
            // The handler caused this error in its own transaction and would cause it again, so the retry uses up an
            // attempt.
            Cause::Postgres(cause) if is_handler_error(cause) => Self::retry(reason),
            Cause::Postgres(cause) if is_lost_conflict(cause) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "a job lost against a concurrent transaction: retrying in 1 s"
                );
                Self::snooze(
                    "another transaction changed the same rows at the same time",
                    UNAVAILABLE_DELAY,
                )
            }
            Cause::Postgres(_) | Cause::Pool(_) if error.is_transient() => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "the database is unavailable"
                );
                Self::snooze("the database is unavailable", UNAVAILABLE_DELAY)
            }
            Cause::Conflict(_)
            | Cause::BadCredentials
            | Cause::BadToken(_)
            | Cause::Corrupt { .. }
            | Cause::Postgres(_)
            | Cause::Pool(_)
            | Cause::Crypto(_) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "an attempt of a job failed"
                );
                Self::retry(reason)
            }
        }
    }
}
