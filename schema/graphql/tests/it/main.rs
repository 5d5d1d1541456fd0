//! Integration tests of the API with a real Postgres and Redis, through [`graphql::Engine`] as the HTTP layer uses it.
//!
//! | file | contents |
//! |---|---|
//! | `harness`, `wire` | an engine on its own database with test organizations; a proxy that records SQL statements |
//! | `sdl`, `contract` | the committed schema, its descriptions and permission directives; the contract with clients |
//! | `tenancy` | isolation of two organizations under random, dropped and failing requests |
//! | `access/api_key`, `access/invitation` | keys whose makers lose rights; membership in a second organization |
//! | `audit` | every mutation writes its audit entry in the transaction of the change |
//! | `inventory/graph` | dependencies, custody (check-out records), changes and labels |
//! | `compliance/run` | findings, waivers, scores and reports |
//! | `statements`, `requests` | SQL statements per list; one transaction and one connection per request |
//! | `subscriptions` | subscriptions with and without Redis; loss of permissions while a connection is open |
//! | `fleet/job` | jobs, queues, workers and schedules |
//! | `compliance/rule` | rules: reading, saving and testing rules |
//! | `limits` | rates of callers and addresses; full job queues; tokens that nobody issued |
//! | `guard` | repeated fields, large answers, places of callers and organizations |
//! | `errors`, `paging` | error codes and messages; pages in both directions |
//! | `compatibility` | cursors that an earlier version issued |
//! | `inventory/files` | uploads and exports |

#![expect(clippy::unwrap_used, reason = "test helpers may panic")]

mod access;
mod audit;
mod compatibility;
mod compliance;
mod contract;
mod errors;
mod fleet;
mod guard;
mod harness;
mod inventory;
mod limits;
mod paging;
mod requests;
mod sdl;
mod statements;
mod subscriptions;
mod tenancy;
mod walk;
mod wire;
