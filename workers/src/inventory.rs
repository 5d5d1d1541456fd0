//! Handlers of inventory jobs.

pub mod import;
