//! The domain: types, pure rules, state machines, and the SQL that stores them.
//!
//! | module | contents |
//! |---|---|
//! | `base` | foundations: database, ids, errors, events, pages |
//! | `access` | authentication and authorization |
//! | `fleet` | jobs, workers and schedules, as users read and manage them |
//! | `inventory` | the assets that an organization operates |
//! | `compliance` | rules, and whether assets satisfy them |
//! | `testing` | a database for each test, and fixtures |
//!
//! A module imports only modules above it in this table (enforced by `cli/tests/it/wings.rs`).
//!
//! Functions take a [`Tx`], which carries the organization. The current time is passed in as `now`. This crate does not
//! use Redis, HTTP or GraphQL resolvers.

pub mod access;
pub mod base;
pub mod compliance;
pub mod fleet;
pub mod inventory;
#[cfg(feature = "testing")]
pub mod testing;

pub use access::viewer::Viewer;
pub use base::actor::Actor;
pub use base::error::{Error, FieldError, Result};
pub use base::{
    actor::Origin,
    db::{Db, Tx},
};
pub use base::{entity, id::Id};
