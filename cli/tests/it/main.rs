//! The binary as users and attackers meet it: real processes, real sockets, a database for each test that needs its own.
//!
//! | file | what it holds |
//! |---|---|
//! | `server` · `client` · `team` · `wire` | a running `sentryops api` · requests to it · people in it · bytes to it |
//! | `floors` · `wings` | which crate may import which · and which wing of a crate which |
//! | `worked_example` | the example of `ARCHITECTURE.md` compiles |
//! | `structure` | what imports what, read from the sources |
//! | `matrix`, `matrix/table`, `matrix/sdl` | everything that states a permission, times everybody who may ask |
//! | `bad_input` · `tokens` · `config` | requests, bearers and settings that are wrong |
//! | `attacks` · `errors` | documents made to hurt · two thousand damaged requests |
//! | `sessions` · `limits` | several replicas: what is revoked on one, and what is counted on all |
//! | `socket`, `sockets` | a client of `graphql-transport-ws` · what is watched arrives, and ends with the right to it |
//! | `fleet` | `sentryops worker`, and runs whose workers are killed |
//! | `demo` | what `up --demo` shows |
//! | `this_machine` | the script that says what a machine is, on made-up machines |
//! | `cancel` · `logs` · `commands` · `embedded` | clients that leave · what is written down · the other commands · private services |
//!
//! Run it under `sentryops services --`. Redis is shared, and limits count by address and account: each team has its own
//! loopback address. Nothing here waits for a time to pass, only for a fact ([`server::until`]).
#![expect(unreachable_pub, reason = "one test binary; nothing is public")]
#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

mod attacks;
mod bad_input;
mod cancel;
mod client;
mod commands;
mod config;
mod demo;
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
mod worked_example;
