//! The job queue in Postgres: jobs are pushed, claimed, run, and then acknowledged.
//!
//! | file | what lives there |
//! |---|---|
//! | `push` | inserts a job in the transaction of the change that needs it |
//! | `claim` | SQL statements that claim and promote jobs |
//! | `lease` | SQL statements on claims: renew, finish, settle, reap |
//! | `fetcher`, `completion` | prefetches jobs; writes their outcomes in batches |
//! | `claims`, `renewal` | the registry of this process's claims; renewal of their leases on a separate thread |
//! | `backend` | the backend for apalis, and the layer that acknowledges each job |
//! | `failure`, `retry` | failures that handlers return: retry, abort, snooze; the backoff before the next attempt |
//! | `depth` | the number of waiting jobs, above which the API refuses to start more |
//! | `history` | partitions of the ended jobs, one per day |
//!
//! A job is *ready* if its state is `WAITING`: any worker may claim it. The verbs of the queue:
//!
//! | verb | meaning |
//! |---|---|
//! | promote | make scheduled jobs that are due ready |
//! | finish | acknowledge a job that succeeded, and move it to the history |
//! | settle | acknowledge a job that did not succeed, and move it to its next state |
//! | snooze | run the job again later, without using up an attempt |
//! | release | make the job ready again, without using up an attempt |
//! | abort | bury (dead-letter) the job immediately, because it cannot succeed |
//! | reap | take back the jobs whose lease has expired |
//!
//! A *claim* is the right of one worker process to run one job. It is valid until its *lease* expires, and the process
//! renews the lease while the job runs. Every claim of a job gets a higher *fencing token*, so a statement of an older
//! claim changes nothing. The types around a claim:
//!
//! | type | meaning |
//! |---|---|
//! | [`Claimant`](claim::Claimant) | a process that claims from one queue; it runs the claiming statement |
//! | [`ClaimedRow`](claim::ClaimedRow) | the columns of a claimed job, as that statement returned them |
//! | [`Lease`](lease::Lease) | identity of a claim in SQL: job and fencing token |
//! | [`Claim`](claims::Claim) | state of a claim in memory: running, stopping, ended |
//! | [`ClaimRegistry`](claims::ClaimRegistry) | all claims of the process |
//! | [`ClaimedJob`](crate::ClaimedJob) | a `ClaimedRow` with its `Claim`, as passed to a handler |
//!
//! A *suspect* is a job whose worker died while the job ran, and that has at most two attempts left. A process claims
//! at most one suspect per queue at a time.
//!
//! A *slot* is a permit for one claim of a queue in one process. Every claim except that of a suspect occupies a slot.
//! The slot is free again when the outcome of the job has been written.

pub mod backend;
pub mod claim;
pub mod claims;
pub(crate) mod completion;
pub mod depth;
pub mod failure;
pub(crate) mod fetcher;
pub mod history;
pub mod lease;
pub mod push;
pub mod renewal;
pub(crate) mod retry;
