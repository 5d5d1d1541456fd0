//! What the resolvers of one request share.
//!
//! | file | what lives there |
//! |---|---|
//! | `context` | who asks, and the request's transactions |
//! | `loader`, `drive` | rows loaded in batches; an execution and its loads, in one task |
//! | `page` | connections, edges, cursors |
//! | `error` | a code and a sentence for the client |

pub(crate) mod context;
pub(crate) mod drive;
pub(crate) mod error;
pub(crate) mod loader;
pub(crate) mod page;
