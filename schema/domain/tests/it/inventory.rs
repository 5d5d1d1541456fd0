//! Assets, and files of them.

mod asset;
mod custody;
mod dedupe;
mod dependency;
mod export;
mod import;
mod round_trip;
mod tag;
