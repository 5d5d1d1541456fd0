//! The API against a real Postgres and Redis, through [`graphql::Engine`] as the HTTP edge uses it.
//!
//! | file | what is held there |
//! |---|---|
//! | `stage`, `wire` | the engine on a database of its own with a team or two; what a pool sends to Postgres |
//! | `sdl`, `contract` | the committed schema, its descriptions and statements; what clients rely on |
//! | `tenancy` | two organizations, random requests, dropped and failing ones: nothing foreign is seen or changed |
//! | `audit` | every mutation leaves its entry, in the transaction of the change |
//! | `graph` | dependencies, custody, changes and labels as people see and change them |
//! | `compliance` | findings, waivers, scores and reports as people see them |
//! | `statements`, `requests` | how many statements a list costs; one transaction and one connection a request |
//! | `subscriptions` | what is watched is sent, to whom may see it, with and without Redis; rights over time |
//! | `fleet` | jobs, queues, workers and schedules as people see them and change them |
//! | `rule` | rules as people see them, write them and try them |
//! | `errors`, `paging` | codes and sentences; pages in both directions |
//! | `files` | uploads however they end, exports |

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

mod audit;
mod compliance;
mod contract;
mod errors;
mod files;
mod fleet;
mod graph;
mod paging;
mod requests;
mod rule;
mod sdl;
mod stage;
mod statements;
mod subscriptions;
mod tenancy;
mod wire;
