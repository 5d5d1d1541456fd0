//! The queue in Postgres: how jobs get in, how a process takes them, and how they end.
//!
//! | file | what lives there |
//! |---|---|
//! | `push` | into the queue, in the transaction of the change that wants the job |
//! | `claim`, `lease` | the queue in SQL: claim, promote; renew, finish, settle, reap |
//! | `fetcher`, `completion` | claiming ahead; writing in batches how jobs ended |
//! | `claims`, `renewal` | the claims of this process, renewed on a thread of their own |
//! | `backend` | all of that as a backend of apalis, and the layer that hears how a job ended |
//! | `failure`, `retry` | retry, abort, snooze; when a job is tried again |
//! | `history` | what became of jobs, by the day |

pub mod backend;
pub mod claim;
pub mod claims;
pub(crate) mod completion;
pub mod failure;
pub(crate) mod fetcher;
pub mod history;
pub mod lease;
pub mod push;
pub mod renewal;
pub(crate) mod retry;
