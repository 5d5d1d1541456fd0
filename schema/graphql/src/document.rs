//! Checks of a GraphQL document before execution: limits, variables and permissions.
//!
//! | file | contents |
//! |---|---|
//! | `lexer` | limits on size, nesting and tokens, checked before parsing |
//! | `index` | the schema's types, fields and permission directives, read from its SDL |
//! | `operation` | the operation of a document that will be executed |
//! | `root` | rules for the root fields of an operation |
//! | `expansion`, `cost` | size after fragment expansion; limits on depth, fields, aliases, directives and cost |
//! | `variables` | the check that variables match their declared types |
//! | `authorize` | the check that the caller has the permissions for every selected field |
//! | `policy` | properties of single fields that no directive expresses |
//! | `error` | the error of a document that is rejected before execution |
//! | `merge` | the rewriting of an operation so that it selects no field twice |
//! | `key_order` | the order of the keys in a response |

pub(crate) mod authorize;
pub(crate) mod cost;
pub(crate) mod error;
pub(crate) mod expansion;
pub(crate) mod index;
pub(crate) mod key_order;
pub(crate) mod lexer;
pub(crate) mod merge;
pub(crate) mod operation;
pub(crate) mod policy;
pub(crate) mod root;
pub(crate) mod variables;
