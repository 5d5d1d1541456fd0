//! GraphQL types and root fields of the inventory: assets, their facts, dependencies and custodies, and imports. Also
//! the upload and export of files over HTTP.

pub(crate) mod asset;
pub(crate) mod attribute;
pub(crate) mod change;
pub(crate) mod custody;
pub(crate) mod dependency;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod tag;
pub(crate) mod upload;
