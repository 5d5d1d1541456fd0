//! The inventory of an organization: assets, their facts and their dependencies.
//!
//! | file | contents |
//! |---|---|
//! | `asset`, `label` | assets, and the QR code on an asset's label |
//! | `attribute`, `tag` | the registry of typed attributes, and the tags that group assets |
//! | `end_of_life` | the dates until which operating systems get security updates |
//! | `dependency` | dependencies between assets, and the assets reached along these |
//! | `custody` | custodies: the check-out records of assets |
//! | `change` | the change history of an asset: its audit entries without the values |
//! | `import`, `export` | import and export of files |
//! | `owners` | presence of owners' e-mail addresses in these files |
//! | `formula` | escaping of cells that a spreadsheet would execute as formulas |

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
pub mod owners;
pub mod tag;
