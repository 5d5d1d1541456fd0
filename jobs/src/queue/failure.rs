//! How a handler fails: what it returns decides what becomes of the job.

use std::time::Duration;

use tokio_postgres::error::SqlState;

/// Why a job did not end well this time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Worth another attempt; buried after the last one.
    Retry {
        /// What people read.
        reason: String,
        /// How long whoever refused asked to wait (`Retry-After`).
        after: Option<Duration>,
    },
    /// Hopeless: buried at once.
    Abort {
        /// What people read.
        reason: String,
    },
    /// Not now: a limit, a budget, something that is away. Costs no attempt.
    Snooze {
        /// What people read.
        reason: String,
        /// How long to wait.
        after: Duration,
    },
    /// Its actor may no longer do this: ended, and told so in the audit trail.
    Denied {
        /// What people read.
        reason: String,
    },
}

impl Failure {
    /// Worth another attempt.
    pub fn retry(reason: impl Into<String>) -> Self {
        Self::Retry { reason: reason.into(), after: None }
    }

    /// Hopeless.
    pub fn abort(reason: impl Into<String>) -> Self {
        Self::Abort { reason: reason.into() }
    }

    /// Not now.
    pub fn snooze(reason: impl Into<String>, after: Duration) -> Self {
        Self::Snooze { reason: reason.into(), after }
    }
}

fn is_its_own(cause: &tokio_postgres::Error) -> bool {
    [SqlState::IN_FAILED_SQL_TRANSACTION, SqlState::READ_ONLY_SQL_TRANSACTION]
        .iter()
        .any(|state| cause.code() == Some(state))
}

/// Of two that wait for each other one loses, and who waits long gives up; nothing is wrong with either.
fn is_lost_race(cause: &tokio_postgres::Error) -> bool {
    [
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::LOCK_NOT_AVAILABLE,
    ]
    .iter()
    .any(|state| cause.code() == Some(state))
}

/// How long to wait for a database that is away.
const AWAY: Duration = Duration::from_secs(1);

impl From<domain::Error> for Failure {
    fn from(error: domain::Error) -> Self {
        use domain::Error as Cause;
        // The cause goes to the log; people read a sentence that names no table.
        let reason = error.to_string();
        match &error {
            Cause::NotFound { .. } | Cause::Invalid(_) | Cause::Forbidden(_) => {
                Self::Abort { reason }
            }
            Cause::Busy { retry_after } => Self::Snooze { reason, after: *retry_after },
            // What the handler did in its transaction, it does again next time.
            Cause::Postgres(cause) if is_its_own(cause) => Self::retry(reason),
            Cause::Postgres(cause) if is_lost_race(cause) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "a job lost a race");
                Self::snooze("somebody else changed the same rows at the same time", AWAY)
            }
            Cause::Postgres(_) | Cause::Pool(_) if error.is_transient() => {
                tracing::debug!(error = &error as &dyn std::error::Error, "the database is away");
                Self::snooze("the database is away", AWAY)
            }
            Cause::Conflict(_)
            | Cause::BadCredentials
            | Cause::BadToken(_)
            | Cause::Corrupt { .. }
            | Cause::Postgres(_)
            | Cause::Pool(_)
            | Cause::Crypto(_) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a job failed");
                Self::retry(reason)
            }
        }
    }
}
