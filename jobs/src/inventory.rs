//! Inventory jobs: imports.

pub mod import;
