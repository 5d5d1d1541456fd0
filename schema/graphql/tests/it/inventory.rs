//! Assets, and files of them.

mod files;
mod graph;
