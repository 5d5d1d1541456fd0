//! State and helpers that the resolvers of one request share.
//!
//! | file | contents |
//! |---|---|
//! | `admission` | the rates of the client address and of the caller; the depth of the job queues |
//! | `context` | the caller and the request's transactions |
//! | `loader`, `drive` | batched loads of rows; execution of a document and its loads in one task |
//! | `pace` | time slices, deadline and answer size of an execution |
//! | `execution_slot` | slots for concurrent executions |
//! | `no_null` | refusal of nulls in the filters of mutations |
//! | `node` | lookup of rows for `node(id)` |
//! | `page`, `row` | connections, edges, cursors; rows of lists |
//! | `error` | errors as clients receive them: a code and a message |
//! | `answer` | the response to a document, and whether any resolver ran |
//! | `permit` | authorization of file uploads and downloads; loss of access while a connection is open |
//! | `subscription_state` | state that a subscription keeps between two executions of its document |

pub(crate) mod admission;
pub(crate) mod answer;
pub(crate) mod context;
pub(crate) mod drive;
pub(crate) mod error;
pub(crate) mod execution_slot;
pub(crate) mod loader;
pub(crate) mod no_null;
pub(crate) mod node;
pub(crate) mod pace;
pub(crate) mod page;
pub(crate) mod permit;
pub(crate) mod row;
pub(crate) mod subscription_state;
