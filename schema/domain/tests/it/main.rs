//! The domain against a real Postgres; run under `sentryops services --`, or by `make test`.
//!
//! | file | what it holds |
//! |---|---|
//! | `schema` | what must be true of every table, asked of the catalogue; the grants |
//! | `db`, `tenancy` | transactions and their connections; nothing of another organization is seen or changed |
//! | `login`, `session`, `identity`, `api_key` | who is let in, for how long, and who is not |
//! | `user`, `role`, `viewer` | who may do what to whom, and still may when it is done |
//! | `asset`, `listing`, `audit` | the inventory, its lists, and who changed what |
//! | `dependency`, `custody` | what needs what, and who holds what |
//! | `import`, `once` | files on their way in |
//! | `export`, `round_trip` | the inventory as files, and back |
//! | `waiver`, `finding` | what may stay broken, until when; what is broken |
//! | `rule`, `verdict`, `native` | rules as they are kept, what they say, and the same by hand |
//! | `posture` | what they say of assets, and following changes |
//! | `score`, `drift`, `report` | how much holds, how that went and will go, and for whom it is written down |
//! | `job`, `worker`, `schedule` | the fleet: what is to be done, by whom and when |
//! | `fixture`, `judged` | what the tests start from |

#![expect(clippy::unwrap_used, reason = "tests; clippy does not see that of their helpers")]

mod api_key;
mod asset;
mod audit;
mod custody;
mod db;
mod dependency;
mod drift;
mod export;
mod finding;
mod fixture;
mod following;
mod identity;
mod import;
mod job;
mod judged;
mod listing;
mod login;
mod native;
mod once;
mod posture;
mod report;
mod role;
mod round_trip;
mod rule;
mod run;
mod schedule;
mod schema;
mod score;
mod session;
mod tag;
mod tenancy;
mod trial;
mod user;
mod verdict;
mod viewer;
mod waiver;
mod worker;
