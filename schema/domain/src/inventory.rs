//! What an organization operates: assets, their facts, and what they need of each other.
//!
//! | file | what lives there |
//! |---|---|
//! | `asset`, `label` | assets, and the code on an asset's label |
//! | `attribute`, `tag` | the registry of typed facts, and the words that group assets |
//! | `end_of_life` | the dates until which systems get security updates |
//! | `dependency` | what an asset needs, and what is reached along it |
//! | `custody` | who holds an asset |
//! | `change` | what changed of an asset, without values |
//! | `import`, `export`, `formula` | files of assets and dependencies, in and out; cells that a spreadsheet would run |

pub mod asset;
pub mod attribute;
pub mod change;
pub mod custody;
pub mod dependency;
pub mod end_of_life;
pub mod export;
pub(crate) mod formula;
pub mod import;
pub mod label;
pub mod tag;
