//! The contract between the code that pushes a job and the worker that runs it.
//!
//! A job carries ids, never data or permissions, and may run more than once. Its handler must therefore read the
//! current rows. The worker checks the permission of the job's actor again before each attempt. A payload has a
//! version. A worker that cannot read the version leaves the job to a worker that can.

use std::time::Duration;

use domain::{
    access::permission::Permission,
    fleet::job::{JobState, Queue},
};
use serde::{Serialize, de::DeserializeOwned};

/// Payload of a job: the work to do, described by ids.
pub trait Job: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Queue from which workers claim the job.
    const QUEUE: Queue;
    /// Name of the job's kind, e.g. `scan.shard`. Never reused for other work.
    const KIND: &'static str;
    /// Version of the payload. Raise it if an older worker could not process the payload. Default 1.
    const VERSION: i16 = 1;
    /// Payload versions that this type can still read. By default only [`VERSION`](Self::VERSION).
    const READS: &'static [i16] = &[Self::VERSION];
    /// Maximum number of attempts. After the last one, the job is buried (dead-lettered): it stays in the queue until a
    /// user retries or discards it. Default 5.
    const ATTEMPTS: i16 = 5;
    /// Time limit of one attempt. Default one minute.
    const TIMEOUT: Duration = Duration::from_mins(1);
    /// Permission that the job's actor must have at the start of each attempt; `None` if no permission is required.
    const PERMISSION: Option<Permission> = None;
    /// True if a job of the kind `<kind>.ended` is pushed when this job is buried, discarded or cancelled.
    const WATCHED: bool = false;

    /// Returns the id of the entity that the job is about, by which users and queries find the job.
    fn subject(&self) -> Option<String> {
        None
    }
}

/// Payload of `<kind>.ended`: the outcome of a watched job that did not succeed.
#[derive(Debug, Clone, serde::Deserialize)]
pub struct Ended {
    /// State in which the job ended.
    pub outcome: JobState,
    /// Reason of the outcome; `None` if none was recorded.
    pub error: Option<String>,
    /// Subject of the job. The payload of the job is left out, because the job may have been buried for a payload that
    /// cannot be parsed.
    pub subject: Option<String>,
}
