//! The jobs of the inventory.

pub mod import;
