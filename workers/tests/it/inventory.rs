//! Imports through the fleet.

mod import;
