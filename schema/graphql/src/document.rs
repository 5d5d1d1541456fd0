//! A document before it runs: what it must not exceed, what its variables must be, and who may select what.
//!
//! | file | what lives there |
//! |---|---|
//! | `lexer` | size, nesting and tokens, before parsing |
//! | `index` | the schema's types, fields and statements, read from the schema itself |
//! | `operation` | the operation of a document that will run |
//! | `root` | what may stand at the root of an operation |
//! | `expansion`, `cost` | fragments measured once; depth, fields, aliases, directives, cost |
//! | `variables` | whether variables are what the document says they are |
//! | `authorize` | who may select what |
//! | `policy` | what the checks must know of single fields and no directive says |
//! | `error` | why a document is refused before it runs |
//! | `key_order` | the order of an answer's keys |

pub(crate) mod authorize;
pub(crate) mod cost;
pub(crate) mod error;
pub(crate) mod expansion;
pub(crate) mod index;
pub(crate) mod key_order;
pub(crate) mod lexer;
pub(crate) mod operation;
pub(crate) mod policy;
pub(crate) mod root;
pub(crate) mod variables;
