//! Tests of the binary from outside, as users and attackers see it: real processes and sockets. A test with special
//! settings has its own database.
//!
//! | file | content |
//! |---|---|
//! | `server` · `client` · `team` · `wire` | a running `sentryops api` · its requests · its users · raw bytes |
//! | `floors` · `wings` | allowed imports between crates · between the wings (top-level modules) of a crate |
//! | `worked_example` | the example of `ARCHITECTURE.md` compiles |
//! | `structure` | imports between files, read from the sources |
//! | `words` | wording of doc comments, counted in the sources |
//! | `matrix`, `matrix/table`, `matrix/sdl` | every permission of the API contract, for every kind of caller |
//! | `bad_input` · `tokens` · `config` | invalid requests · invalid bearer tokens · invalid settings |
//! | `attacks` · `errors` | hostile documents · two thousand damaged requests |
//! | `edge` | limits of every transport, full job queues, readiness |
//! | `sessions` · `limits` | several replicas: revocation of sessions · shared rate limits |
//! | `socket`, `sockets` | a client of `graphql-transport-ws` · events arrive until the permission is lost |
//! | `fleet` | `sentryops worker`, and compliance runs whose workers are killed |
//! | `demo` | content of `up --demo` |
//! | `this_machine` | `docker/this-machine` on simulated machines |
//! | `cancel` · `logs` · `commands` · `embedded` | disconnects · logs · the other commands · private services |
//!
//! Run the tests under `sentryops services --`. All tests share one Redis, and limits apply per address and account, so
//! each team has its own loopback address. Tests wait for a condition ([`server::until`]), never for a fixed time.
#![expect(unreachable_pub, reason = "one test binary; nothing is public")]
#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

mod attacks;
mod bad_input;
mod cancel;
mod client;
mod commands;
mod config;
mod demo;
mod edge;
mod embedded;
mod errors;
mod fleet;
mod floors;
mod limits;
mod logs;
mod matrix;
mod server;
mod sessions;
mod socket;
mod sockets;
mod structure;
mod team;
mod this_machine;
mod tokens;
mod wings;
mod wire;
mod words;
mod worked_example;
