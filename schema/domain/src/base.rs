//! The ground that every wing stands on: it knows no noun of the product.
//!
//! | file | what lives there |
//! |---|---|
//! | `db` | the pool, and transactions that carry their organization |
//! | `id` | typed ids |
//! | `error`, `event` | what can go wrong, and hints that rows changed |
//! | `page`, `listing` | keyset pages, and lists with typed filters |
//! | `text`, `nearest` | enums and texts in Postgres, and the name that was probably meant |

pub mod actor;
pub mod db;
pub mod entity;
pub mod error;
pub mod event;
pub mod id;
pub(crate) mod listing;
pub mod nearest;
pub mod page;
pub mod run_state;
pub mod stale;
pub mod text;
