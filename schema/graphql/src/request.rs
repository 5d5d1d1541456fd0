//! What the resolvers of one request share.
//!
//! | file | what lives there |
//! |---|---|
//! | `context` | who asks, and the request's transactions |
//! | `loader`, `drive` | rows loaded in batches; an execution and its loads, in one task |
//! | `node` | rows that `node(id)` finds |
//! | `page` | connections, edges, cursors |
//! | `error` | a code and a sentence for the client |
//! | `answer` | what came of a document |
//! | `permit` | who asks for what is no document, and what they may lose |
//! | `watch` | what a subscription remembers from one execution to the next |

pub(crate) mod answer;
pub(crate) mod context;
pub(crate) mod drive;
pub(crate) mod error;
pub(crate) mod loader;
pub(crate) mod node;
pub(crate) mod page;
pub(crate) mod permit;
pub(crate) mod watch;
