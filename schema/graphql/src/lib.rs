//! What the API shows: views, resolvers, and the checks that come before them.
//!
//! | file | what lives there |
//! |---|---|
//! | `engine`, `order` | [`Engine`]: the one way in, whatever the transport; the order of an answer's keys |
//! | `scan`, `expansion`, `cost`, `input`, `refusal` | what a document must not exceed, and what its variables must be |
//! | `subscription`, `watch` | a document executed again and again; rights over time |
//! | `upload`, `export`, `permit` | files in and out, which are no documents; who may |
//! | `drive` | an execution and its loads, in one task |
//! | `chosen`, `shape`, `authorize` | the operation that will run, the schema's statements, who may select what |
//! | `schema`, `context`, `loader`, `page`, `error` | the roots, and what resolvers share |
//! | `asset`, `tag`, `import`, `dependency`, `custody`, `change`, `compliance`, `rule`, `posture`, `finding`, `waiver`, `score`, `drift`, `forecast`, `report`, `job`, `worker`, `schedule`, `user`, `session`, `api_key`, `audit`, `actor`, `node` | a file a noun: view, query, mutation |
//!
//! No HTTP is known here: a bearer is a text and an address an address, wherever they came from.

// async-graphql's merged roots nest a future per object; the compiler's default of 128 levels is too few for them.
#![recursion_limit = "256"]

mod actor;
mod api_key;
mod asset;
mod attribute;
mod audit;
mod authorize;
mod change;
mod chosen;
mod compliance;
mod context;
mod cost;
mod custody;
mod dependency;
mod drift;
mod drive;
mod engine;
mod error;
mod expansion;
mod export;
mod finding;
mod forecast;
mod import;
mod input;
mod job;
mod loader;
mod node;
mod order;
mod page;
mod permit;
mod posture;
mod refusal;
mod report;
mod rule;
mod scan;
mod schedule;
mod schema;
mod score;
mod session;
mod shape;
mod subscription;
mod tag;
mod upload;
mod user;
mod waiver;
mod watch;
mod worker;

pub use context::{Client, Services};
pub use engine::{Allowlist, Answer, Engine, Operation, Prepared, Settings, refused, sdl};
pub use error::{Error, ErrorCode};
pub use report::Printed;
pub use upload::{BrokenOff, Received};
pub use watch::{Lost, Recognised, Watching};
