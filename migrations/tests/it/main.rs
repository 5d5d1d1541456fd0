//! The runner against a real Postgres: `TEST_ADMIN_URL` names a superuser of a private cluster.

#![expect(clippy::unwrap_used, reason = "tests; clippy does not see that of their helpers")]

mod database;
mod lists;
mod real;
mod roles;
mod trouble;
