//! Foundations that every other module of this crate uses. Types of the product's features (assets, rules, jobs) are
//! not imported here.
//!
//! | file | contents |
//! |---|---|
//! | `db` | the connection pool, and transactions that carry their organization |
//! | `id`, `entity` | typed ids, and the table of all entities |
//! | `actor` | the actor and request that caused a change |
//! | `error`, `event` | errors of the domain; events, i.e. notifications without content that a row may have changed |
//! | `page`, `listing` | keyset pages, and lists with typed filters |
//! | `text`, `nearest` | text validation, enums stored as text, and "did you mean" suggestions |
//! | `run_state` | state of a compliance run or an import |
//! | `stale` | marks of assets whose verdicts must be evaluated again |

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
