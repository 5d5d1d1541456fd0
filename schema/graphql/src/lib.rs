//! What the API shows: views, resolvers, and the checks that come before them.
//!
//! | folder | what lives there |
//! |---|---|
//! | `engine` | [`Engine`]: the one way in, whatever the transport; the schema's roots, `node`, subscriptions |
//! | `document` | what is checked of a document before it runs |
//! | `request` | what the resolvers of one request share |
//! | `access`, `inventory`, `fleet`, `compliance` | a file a noun: view, query, mutation, inputs |
//!
//! No HTTP is known here: a bearer is a text and an address an address, wherever they came from.

// async-graphql's merged roots nest a future per object; the compiler's default of 128 levels is too few for them.
#![recursion_limit = "256"]

mod access;
mod compliance;
mod document;
mod engine;
mod fleet;
mod inventory;
mod request;

pub use compliance::report::Printed;
pub use engine::{
    Allowlist, Engine, OperationKind, Prepared, Settings,
    recognition::{Recognised, Watching},
    sdl,
};
pub use inventory::upload::{BrokenOff, Received};
pub use request::{
    answer::{Answer, refused},
    context::{Client, Services},
    error::{Error, ErrorCode},
    permit::Lost,
};
