//! The handlers of the inventory.

pub mod import;
