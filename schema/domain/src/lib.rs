//! What is true: types, pure rules, state machines, and their SQL.
//!
//! | file | noun |
//! |---|---|
//! | `db` | the pool, and transactions that carry their organization |
//! | `id`, `page`, `error`, `event`, `text` | ids, keyset pages, errors, hints, enums and texts in Postgres |
//! | `organization`, `user`, `role`, `permission`, `directive` | who belongs where, and what they may do |
//! | `identity`, `login`, `password`, `session`, `token`, `api_key`, `viewer` | how somebody proves who they are |
//! | `audit` | who changed what |
//! | `asset`, `label` | something we operate, and the code on its label |
//! | `attribute`, `tag` | what can be known of it, and the words it is grouped by |
//! | `end_of_life` | until when systems get security updates |
//! | `dependency` | what an asset needs, and what is reached along it |
//! | `custody` | who holds an asset |
//! | `change` | what changed of an asset, without values |
//! | `import`, `export` | a file of assets or dependencies on its way in, and out |
//! | `formula` | cells that a spreadsheet would run |
//! | `nearest` | what was probably meant by a wrong name |
//! | `finding` | a rule that an asset breaks, or broke |
//! | `drift` | what broke and what was mended between two runs |
//! | `forecast` | which verdicts time alone will change |
//! | `posture` | what every rule says of an asset now |
//! | `report` | what a run found, for who answers for it |
//! | `rule` | a machine-checkable condition |
//! | `run` | a compliance run and its shards |
//! | `score` | how much of what was judged holds, and how much was |
//! | `waiver` | a dated permission to leave a rule broken |
//! | `job` | an order to a worker, as people see it |
//! | `worker` | a process that takes jobs |
//! | `schedule` | what is to be done at which times |
//!
//! Functions take our [`db::Tx`], which proves the organization; time comes in as `now`. No Redis, no HTTP, no
//! resolver is known here.

pub mod api_key;
pub mod asset;
pub mod attribute;
pub mod audit;
pub mod change;
pub mod custody;
pub mod db;
pub mod dependency;
pub mod directive;
pub mod drift;
pub mod end_of_life;
pub mod error;
pub mod event;
pub mod export;
pub mod finding;
pub mod forecast;
mod formula;
pub mod id;
pub mod identity;
pub mod import;
pub mod job;
pub mod label;
mod listing;
pub mod login;
pub mod nearest;
pub mod organization;
pub mod page;
pub mod password;
pub mod permission;
pub mod posture;
pub mod report;
pub mod role;
pub mod rule;
pub mod run;
pub mod schedule;
pub mod score;
pub mod session;
pub mod tag;
#[cfg(feature = "testing")]
pub mod testing;
pub mod text;
pub mod token;
pub mod user;
pub mod viewer;
pub mod waiver;
pub mod worker;

pub use db::{Db, Origin, Tx};
pub use error::{Error, Fault, Result};
pub use id::Id;
pub use viewer::{Actor, Viewer};
