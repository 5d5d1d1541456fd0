//! The API against a real Postgres and Redis, through [`graphql::Engine`] as the HTTP edge uses it.
//!
//! | file | what is held there |
//! |---|---|
//! | `harness`, `wire` | the engine on a database of its own with a team or two; what a pool sends to Postgres |
//! | `sdl`, `contract` | the committed schema, its descriptions and statements; what clients rely on |
//! | `tenancy` | two organizations, random requests, dropped and failing ones: nothing foreign is seen or changed |
//! | `audit` | every mutation leaves its entry, in the transaction of the change |
//! | `inventory/graph` | dependencies, custody, changes and labels as people see and change them |
//! | `compliance/run` | findings, waivers, scores and reports as people see them |
//! | `statements`, `requests` | how many statements a list costs; one transaction and one connection a request |
//! | `subscriptions` | what is watched is sent, to whom may see it, with and without Redis; rights over time |
//! | `fleet/job` | jobs, queues, workers and schedules as people see them and change them |
//! | `compliance/rule` | rules as people see them, write them and try them |
//! | `errors`, `paging` | codes and sentences; pages in both directions |
//! | `compatibility` | cursors that an earlier version handed out |
//! | `inventory/files` | uploads however they end, exports |

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

mod audit;
mod compatibility;
mod compliance;
mod contract;
mod errors;
mod fleet;
mod harness;
mod inventory;
mod paging;
mod requests;
mod sdl;
mod statements;
mod subscriptions;
mod tenancy;
mod wire;
