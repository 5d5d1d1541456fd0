//! Tests of the inventory: assets, dependencies, custody, tags, imports and exports.

mod asset;
mod custody;
mod dedupe;
mod dependency;
mod export;
mod import;
mod round_trip;
mod tag;
