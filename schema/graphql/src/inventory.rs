//! Assets, their facts and dependencies; files of them, in and out.

pub(crate) mod asset;
pub(crate) mod attribute;
pub(crate) mod change;
pub(crate) mod custody;
pub(crate) mod dependency;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod tag;
pub(crate) mod upload;
