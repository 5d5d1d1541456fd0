//! What imports what, read from the sources: files are the nodes, names in their code the arrows. The tests of `wings`
//! judge them, and `cargo run -p cli --example structure` prints them, for this checkout or an older one.
//!
//! An **arrow** leads from file A to file B of the same crate when the code of A names an item of B: in a `use`, in a
//! path, or in a path within a macro's or an attribute's tokens. Re-exports are followed to the file where the item
//! stands, so `crate::Id` leads to `base/id.rs`. A path that ends at a module is no arrow; the paths that go on from it
//! are. A glob names its module.
//!
//! Not counted:
//! - what stands under `#[cfg(test)]`, files included;
//! - crate roots (`lib.rs`, `main.rs`), at either end;
//! - a file's `mod` lines, and its re-exports of what stands in its own folder;
//! - a file that names the file its folder belongs to: `rule/cel.rs` speaks for `rule/cel/`, so only the way down counts.
//!
//! Given up: method calls and what macros write name no file, and types are not inferred. Choose again when an arrow of
//! that kind ties a circle that nobody sees here.

pub mod arrow;
pub mod circle;
pub mod module;
pub mod resolve;
pub mod source;

/// Every crate's sources, from the repository's root.
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
