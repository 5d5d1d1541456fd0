//! Errors of the migration runner, in sentences that tell the operator what to do. If Postgres rejects the SQL of a
//! migration, the error contains the full message of Postgres, because only operators see the error.

use std::fmt;
use std::time::Duration;

use tokio_postgres::error::{DbError, ErrorPosition, SqlState};

use crate::migration::{Direction, Migration};
use crate::script;

/// Error of applying, reverting or reading migrations, or of creating the database roles.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Database roles that migrations grant privileges to do not exist yet.
    #[error(
        "the database roles {} do not exist: run `sentryops migrate roles` as a database administrator",
        .0.join(", ")
    )]
    RolesMissing(Vec<String>),
    /// The login is not a member of `sentryops_owner`.
    #[error(
        "{login} may not act as sentryops_owner, which owns the schema: connect with DATABASE_OWNER_URL as \
         sentryops_owner, or run `sentryops migrate roles` as a database administrator"
    )]
    NotOwner {
        /// Name of the connected login.
        login: String,
    },
    /// `sentryops_owner` lacks privileges in this database.
    #[error(
        "sentryops_owner may not create tables in schema public of database {database}: run \
         `sentryops migrate roles` as a database administrator, connected to that database"
    )]
    MayNotCreate {
        /// Name of the connected database.
        database: String,
    },
    /// Another session held the migration lock for longer than the lock timeout.
    #[error(
        "another migration has been running for more than {} s{}",
        waited.as_secs(), holder.as_ref().map_or_else(String::new, |holder| format!(": {holder}"))
    )]
    Locked {
        /// Time spent waiting for the lock.
        waited: Duration,
        /// Session that holds the lock; `None` if the lock was released in the meantime.
        holder: Option<Holder>,
    },
    /// The SQL of an applied migration differs from the SQL in this binary.
    #[error(
        "migration {version:04} {name} was applied with different SQL than this binary has: run the binary that \
         applied it, or restore its files; to change the schema, add a new migration"
    )]
    Changed {
        /// Number of the migration, from 1.
        version: i32,
        /// Name of the migration in this binary.
        name: String,
    },
    /// A migration is pending although a newer migration is applied.
    #[error("migration {missing:04} is not applied, but the newer migration {applied:04} is")]
    OutOfOrder {
        /// Version that is still pending.
        missing: i32,
        /// Newest version that is applied.
        applied: i32,
    },
    /// The migrations to revert include migrations that only a newer binary contains.
    #[error(
        "this binary cannot revert {}: use the newer binary that applied these versions",
        .0.iter().map(|version| format!("{version:04}")).collect::<Vec<_>>().join(", ")
    )]
    Unknown(Vec<i32>),
    /// The requested version does not exist.
    #[error("version {requested} does not exist: this binary has the versions 0 to {latest}")]
    Target {
        /// Requested version, as passed by the caller.
        requested: i32,
        /// Newest version in this binary.
        latest: i32,
    },
    /// The login is not allowed as the login of the application.
    #[error("{login} cannot be the login of the application: it {reason}")]
    Login {
        /// Name of the rejected login.
        login: String,
        /// Reason as a verb phrase, e.g. `bypasses row security`.
        reason: &'static str,
    },
    /// Postgres rejected the SQL of a migration, or the connection was lost while the migration ran.
    #[error(transparent)]
    Failed(Box<Failure>),
    /// Postgres rejected any other statement, or the connection was lost.
    #[error("Postgres failed while {doing}")]
    Postgres {
        /// Activity that failed, e.g. `reading schema_migration`.
        doing: &'static str,
        /// Cause as reported by the driver.
        source: tokio_postgres::Error,
    },
}

impl Error {
    pub(crate) fn postgres(doing: &'static str) -> impl Fn(tokio_postgres::Error) -> Self {
        move |source| Self::Postgres { doing, source }
    }
}

/// Failed migration. The changes of the failed migration are rolled back. Migrations that ran before it stay applied.
#[derive(Debug)]
pub struct Failure {
    /// Number of the migration, from 1.
    pub version: i32,
    /// Name of the migration, e.g. `asset`.
    pub name: &'static str,
    /// Direction in which the migration ran.
    pub direction: Direction,
    /// Line of the SQL file, from 1: the line of the position that Postgres reports, or otherwise the first line of the
    /// rejected statement. `None` if a statement outside the file failed, e.g. the commit.
    pub line: Option<usize>,
    /// SQLSTATE that Postgres returned; `None` if the connection was lost.
    pub sqlstate: Option<SqlState>,
    /// Message of Postgres, or of the driver if the connection was lost.
    pub message: String,
    source: tokio_postgres::Error,
}

impl Failure {
    /// Builds a failure. `done` is the number of completed statements of the file; `None` if a statement outside the
    /// file failed.
    pub(crate) fn new(
        migration: &Migration,
        direction: Direction,
        done: Option<usize>,
        source: tokio_postgres::Error,
    ) -> Self {
        let sql = migration.sql(direction);
        let line = done.and_then(|done| match source.as_db_error().and_then(DbError::position) {
            Some(&ErrorPosition::Original(character)) => Some(script::line_of(sql, character)),
            _ => script::line_after(sql, done),
        });
        Self {
            version: migration.version,
            name: migration.name,
            direction,
            line,
            sqlstate: source.code().cloned(),
            message: source
                .as_db_error()
                .map_or_else(|| source.to_string(), |error| error.message().to_owned()),
            source,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}_{}.{}.sql", self.version, self.name, self.direction)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        let Some(error) = self.source.as_db_error() else {
            return write!(f, " failed: {}; see `sentryops migrate status`", self.message);
        };
        write!(
            f,
            " failed and was rolled back: {} (SQLSTATE {})",
            self.message,
            error.code().code()
        )?;
        let extras =
            [("detail", error.detail()), ("hint", error.hint()), ("where", error.where_())];
        for (label, extra) in extras {
            if let Some(text) = extra {
                write!(f, "; {label}: {}", text.replace('\n', ", "))?;
            }
        }
        if error.code() == &SqlState::LOCK_NOT_AVAILABLE {
            f.write_str("; another session uses the table: run it again later")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // `Display` contains the full error of Postgres. Only the error of a lost connection has a further cause.
        if self.source.as_db_error().is_some() { None } else { Some(&self.source) }
    }
}

/// Database session that holds the migration lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Process id on the database server, as in `pg_stat_activity`.
    pub pid: i32,
    /// `application_name` of the session; empty if the session has not set one.
    pub application_name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {} (application_name '{}')", self.pid, self.application_name)
    }
}
