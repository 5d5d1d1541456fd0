//! Imports, run by worker processes.

mod import;
mod owners;
