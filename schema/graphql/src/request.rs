//! State and helpers that the resolvers of one request share.
//!
//! | file | contents |
//! |---|---|
//! | `context` | the caller and the request's transactions |
//! | `loader`, `drive` | batched loads of rows; execution of a document and its loads in one task |
//! | `node` | lookup of rows for `node(id)` |
//! | `page` | connections, edges, cursors |
//! | `error` | errors as clients receive them: a code and a message |
//! | `answer` | the response to a document, and whether any resolver ran |
//! | `permit` | authorization of file uploads and downloads; loss of access while a connection is open |
//! | `subscription_state` | state that a subscription keeps between two executions of its document |

pub(crate) mod answer;
pub(crate) mod context;
pub(crate) mod drive;
pub(crate) mod error;
pub(crate) mod loader;
pub(crate) mod node;
pub(crate) mod page;
pub(crate) mod permit;
pub(crate) mod subscription_state;
