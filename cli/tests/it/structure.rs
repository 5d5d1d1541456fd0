//! Import graph of each crate, read from the sources: files are nodes, and names in their code are arrows. The tests of
//! `wings` check the arrows. `cargo run -p cli --example structure` prints them, for this checkout or an older one.
//!
//! An **arrow** leads from file A to file B of the same crate when the code of A names an item of B: in a `use`, in a
//! path, or in a path within a macro's or an attribute's tokens. Re-exports are followed to the file that defines the
//! item, so `crate::Id` leads to `base/id.rs`. A path that ends at a module is no arrow; longer paths through it are. A
//! glob names its module.
//!
//! Not counted:
//! - code under `#[cfg(test)]`, including whole files;
//! - crate roots (`lib.rs`, `main.rs`), at either end;
//! - a file's `mod` lines, and its re-exports from its own folder;
//! - arrows to the file that owns the folder: `rule/cel.rs` represents `rule/cel/`, so only arrows down are counted.
//!
//! Given up: method calls and expanded macros name no file, and types are not inferred. Choose again when such an arrow
//! closes a circle that stays invisible here.

pub mod arrow;
pub mod circle;
pub mod module;
pub mod resolve;
pub mod source;

/// Source folders of all crates, relative to the repository root.
pub const CRATES: &[&str] = &[
    "migrations/src",
    "schema/domain/src",
    "jobs/src",
    "schema/graphql/src",
    "workers/src",
    "api/src",
    "cli/src",
    "loadtests/src",
];
