//! The edge over real sockets, one behaviour per test, with the test engine of `harness`.
#![expect(unreachable_pub, reason = "one test binary; nothing is public")]
#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

mod answer;
mod client;
mod connection;
mod cors;
mod endpoint;
mod export;
mod harness;
mod headers;
mod health;
mod playground;
mod rate;
mod record;
mod report;
mod socket;
mod sse;
mod stop;
mod upload;
mod wire;
