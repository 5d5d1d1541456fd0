//! The GraphQL API: object types, resolvers, and the checks that run before them.
//!
//! | folder | contents |
//! |---|---|
//! | `engine` | [`Engine`], the only entry point for all transports; root types, `node`, subscriptions |
//! | `document` | checks of a GraphQL document before execution |
//! | `request` | state and helpers that the resolvers of one request share |
//! | `access`, `inventory`, `fleet`, `compliance` | object types, queries, mutations and inputs, one file per topic |
//!
//! This crate does not depend on HTTP: transports pass the bearer token and the client's address as plain values.

// The merged roots of async-graphql nest one future per object, deeper than the compiler's default limit of 128.
#![recursion_limit = "256"]

mod access;
mod compliance;
mod document;
mod engine;
mod fleet;
mod inventory;
mod request;

pub use compliance::report::PrintedReport;
#[cfg(feature = "testing")]
pub use engine::ResolverCalls;
pub use engine::{
    Allowlist, Download, Engine, OperationKind, Prepared, Settings,
    connection::{CheckIntervals, ConnectedCaller},
    sdl,
};
pub use inventory::upload::{Received, UploadAbort};
pub use request::{
    answer::{Answer, refused},
    context::{Client, Services},
    error::{Error, ErrorCode},
    permit::AccessLoss,
};
