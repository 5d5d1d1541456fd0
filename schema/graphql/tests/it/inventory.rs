//! Tests of the inventory: dependencies, custody, changes and labels; uploads and exports.

mod files;
mod graph;
