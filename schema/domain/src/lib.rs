//! What is true: types, pure rules, state machines, and their SQL.
//!
//! | wing | what lives there |
//! |---|---|
//! | `base` | the ground: database, ids, errors, events, pages |
//! | `access` | who somebody is, and what they may do |
//! | `inventory` | what an organization operates |
//! | `fleet` | the work of the fleet, as people see it |
//! | `compliance` | whether assets are as the rules want them |
//! | `testing` | a database for each test, and what tests fill it with |
//!
//! A wing imports those below it and no other (held by `cli/tests/it/wings.rs`).
//!
//! Functions take our [`Tx`], which proves the organization; time comes in as `now`. No Redis, no HTTP, no
//! resolver is known here.

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
