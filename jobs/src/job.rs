//! What a job is to those who push it and those who do it.
//!
//! A job carries ids, never data or rights, and may run twice: what it does must come from rows, and its right is
//! checked again when it runs. A payload has a version; a worker that does not know it leaves the job for one that does.

use std::time::Duration;

use domain::{
    access::permission::Permission,
    fleet::job::{JobState, Queue},
};
use serde::{Serialize, de::DeserializeOwned};

/// An order: what is to be done, by name and ids.
pub trait Job: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The queue it waits in.
    const QUEUE: Queue;
    /// Its name, e.g. `scan.shard`; never reused for something else.
    const KIND: &'static str;
    /// The version of its payload: raised when an older worker could not read it.
    const VERSION: i16 = 1;
    /// The versions that it can still be read from.
    const READS: &'static [i16] = &[Self::VERSION];
    /// Starts after which it is buried.
    const ATTEMPTS: i16 = 5;
    /// How long one attempt may take.
    const TIMEOUT: Duration = Duration::from_mins(1);
    /// What its actor must still be allowed to do when it runs.
    const PERMISSION: Option<Permission> = None;
    /// Whether its kind is told when it is buried, discarded or cancelled: by a job of the kind `<kind>.ended`.
    const WATCHED: bool = false;

    /// The id of what it is about, to find it by.
    fn subject(&self) -> Option<String> {
        None
    }
}

/// What became of a watched job that did not succeed: the payload of `<kind>.ended`.
#[derive(Debug, Clone, serde::Deserialize)]
pub struct Ended {
    /// How it ended.
    pub outcome: JobState,
    /// Why, if it failed.
    pub error: Option<String>,
    /// What it was about. Not its payload: that it could not be read may be why it ended.
    pub subject: Option<String>,
}
