//! The database schema as numbered SQL files, each with an up and a down script, and the runner that applies them.
//!
//! - [`all`]: the migrations of this binary (`sql/`, embedded by `build.rs`)
//! - [`up`], [`down`]: apply and revert migrations, one transaction each, under one advisory lock
//! - [`status`], [`version`]: read the applied migrations; both also work with the login of the application
//! - [`roles`], [`roles_sql`]: create the database roles idempotently, or return the SQL for an administrator
//!
//! Chosen: our own runner, because it acts as `sentryops_owner`, can migrate down, and reports the line of the SQL file
//! that failed. Given up: migrations that cannot run in a transaction (`CREATE INDEX CONCURRENTLY`). Revisit when a
//! table is too large to build an index under a lock.
//!
//! Use a direct connection to Postgres. A pooler that changes sessions between transactions breaks the advisory lock.

mod error;
#[cfg(test)]
mod listing;
mod lock;
mod migration;
mod record;
mod roles;
mod runner;
mod script;
mod status;

pub use error::{Error, Failure, Holder};
pub use migration::{Direction, Migration, all, latest};
pub use roles::{RolesOutcome, roles, roles_sql, set_password};
pub use runner::{Applied, down, down_to, up, up_to};
pub use status::{State, Status, status, status_of, version};
