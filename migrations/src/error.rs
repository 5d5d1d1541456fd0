//! Why a migration did not happen, in sentences that say what to do. Postgres' own words are kept whole where SQL of
//! ours was refused: here the reader is the operator, not a client of the API.

use std::fmt;
use std::time::Duration;

use tokio_postgres::error::{DbError, ErrorPosition, SqlState};

use crate::migration::{Direction, Migration};
use crate::script;

/// Why migrating, or reading what is migrated, failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Roles that every migration grants to do not exist yet.
    #[error(
        "the database roles {} do not exist: run `sentryops migrate roles` as a database administrator",
        .0.join(", ")
    )]
    RolesMissing(Vec<String>),
    /// The login is not a member of `sentryops_owner`.
    #[error(
        "{login} may not act as sentryops_owner, who owns the schema: connect with DATABASE_OWNER_URL as \
         sentryops_owner, or run `sentryops migrate roles` as a database administrator"
    )]
    NotOwner {
        /// The connected login.
        login: String,
    },
    /// `sentryops_owner` lacks rights in this database.
    #[error(
        "sentryops_owner may not create tables in schema public of database {database}: run \
         `sentryops migrate roles` as a database administrator, connected to that database"
    )]
    MayNotCreate {
        /// The connected database.
        database: String,
    },
    /// Another process migrates, for longer than we wait.
    #[error(
        "another migration has been running for more than {} s{}",
        waited.as_secs(), holder.as_ref().map_or_else(String::new, |holder| format!(": {holder}"))
    )]
    Locked {
        /// How long we waited.
        waited: Duration,
        /// Who holds the lock, unless it was released in the meantime.
        holder: Option<Holder>,
    },
    /// An applied migration is not the one that this binary carries.
    #[error(
        "migration {version:04} {name} was applied with other SQL than this binary has: run the binary that applied \
         it, or restore its files; a change of the schema is a new migration"
    )]
    Changed {
        /// Its number.
        version: i32,
        /// Its name in this binary.
        name: String,
    },
    /// An older migration is pending beneath an applied one.
    #[error("migration {missing:04} is not applied, but the newer {applied:04} is")]
    OutOfOrder {
        /// The one that should have come first.
        missing: i32,
        /// The newer one.
        applied: i32,
    },
    /// Asked to take back what only a newer binary knows.
    #[error(
        "this binary does not know how to take back {}: use the newer binary that applied it",
        .0.iter().map(|version| format!("{version:04}")).collect::<Vec<_>>().join(", ")
    )]
    Unknown(Vec<i32>),
    /// Asked for a version that does not exist.
    #[error("there is no version {asked}: this binary knows 0 to {latest}")]
    Target {
        /// What was asked for.
        asked: i32,
        /// The newest version known.
        latest: i32,
    },
    /// The login cannot serve the application.
    #[error("{login} cannot be the login of the application: it {reason}")]
    Login {
        /// The login.
        login: String,
        /// What it is or does, e.g. `is a superuser`.
        reason: &'static str,
    },
    /// The SQL of a migration was refused.
    #[error(transparent)]
    Failed(Box<Failure>),
    /// Postgres refused something else, or the connection broke.
    #[error("Postgres failed while {doing}")]
    Postgres {
        /// What we were doing.
        doing: &'static str,
        /// The cause.
        source: tokio_postgres::Error,
    },
}

impl Error {
    pub(crate) fn postgres(doing: &'static str) -> impl Fn(tokio_postgres::Error) -> Self {
        move |source| Self::Postgres { doing, source }
    }
}

/// A migration that failed. What was applied before it stays; of itself nothing does.
#[derive(Debug)]
pub struct Failure {
    /// Its number.
    pub version: i32,
    /// Its name.
    pub name: &'static str,
    /// Which way it went.
    pub direction: Direction,
    /// The line of the SQL file, from 1: where Postgres points, else where the refused statement begins. `None` when
    /// it failed outside of the file's own statements, e.g. at commit.
    pub line: Option<usize>,
    /// `None` when the connection broke.
    pub sqlstate: Option<SqlState>,
    /// What Postgres said.
    pub message: String,
    source: tokio_postgres::Error,
}

impl Failure {
    /// `done`: how many statements of the file had completed; `None` outside of them.
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
                .map_or_else(|| source.to_string(), |refusal| refusal.message().to_owned()),
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
        let Some(refusal) = self.source.as_db_error() else {
            return write!(f, " failed: {}; see `sentryops migrate status`", self.message);
        };
        write!(f, " failed and was undone: {} (SQLSTATE {})", self.message, refusal.code().code())?;
        let notes =
            [("detail", refusal.detail()), ("hint", refusal.hint()), ("where", refusal.where_())];
        for (label, note) in notes {
            if let Some(note) = note {
                write!(f, "; {label}: {}", note.replace('\n', ", "))?;
            }
        }
        if refusal.code() == &SqlState::LOCK_NOT_AVAILABLE {
            f.write_str("; another session uses the table: run it again")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // A refusal is told above, whole; a broken connection has a cause below.
        if self.source.as_db_error().is_some() { None } else { Some(&self.source) }
    }
}

/// The session that is migrating.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its process on the server, as in `pg_stat_activity`.
    pub pid: i32,
    /// The name it gave itself; empty when it gave none.
    pub application_name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {} (application_name '{}')", self.pid, self.application_name)
    }
}
