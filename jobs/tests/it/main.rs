//! Tests against a real Redis: the shared one of `REDIS_URL` where that suffices, a separate one where it is stopped,
//! killed or emptied.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

mod block;
mod event;
mod limit;
mod outage;
mod script;
mod server;
