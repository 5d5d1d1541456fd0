//! Assets, and files of them.

mod asset;
mod custody;
mod dependency;
mod export;
mod import;
mod once;
mod round_trip;
mod tag;
