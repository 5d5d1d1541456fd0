//! The schema of the database as numbered SQL files, up and down, and their runner.
//!
//! - [`all`]: what this binary carries (`sql/`, embedded by `build.rs`)
//! - [`up`], [`down`]: apply and take back, one transaction each, under one advisory lock
//! - [`status`], [`version`]: what a database has; `version` also serves the application's login
//! - [`roles`], [`roles_sql`]: the database roles, made idempotently, or their SQL for an administrator
//!
//! Decision: our own runner, because it acts as `sentryops_owner`, knows the way down, and names the line of the file
//! that failed. Given up: migrations that cannot run in a transaction (`CREATE INDEX CONCURRENTLY`). Choose again when
//! a table is too big for an index to be built under a lock. Use a direct connection: a pooler that changes sessions
//! between transactions breaks the advisory lock.

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
