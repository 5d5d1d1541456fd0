//! Worker processes: they claim jobs from the queues and run them. All worker processes of an installation are its
//! fleet.
//!
//! | file | what lives there |
//! |---|---|
//! | `handler` | [`Handlers`]: the function for each job kind |
//! | `context` | [`Context`]: the job of a handler, and the transactions in which it works |
//! | `dispatch` | one attempt of a job: permission, time limit, stop, tracing span |
//! | `fleet` | [`WorkerProcess`]: one consumer per queue, lease renewal, graceful shutdown; the jobs of due schedules |
//! | `maintenance` | heartbeats, reaping of expired leases, clean-up, and the [`PeriodicTasks`] of the other modules |
//! | `compliance` | handlers of compliance runs, and of the re-evaluation of postures between runs |
//! | `inventory` | handlers of the imports of assets and dependencies |
//!
//! Only [`handlers`] and [`periodic_tasks`] name the modules with handlers (`compliance`, `inventory`) and
//! `fleet/schedule`. The other files do not depend on them.
//!
//! All worker processes are equal, and any number of them may run. Work that must be done only once is claimed from
//! rows.

mod access;
pub mod compliance;
mod context;
mod dispatch;
mod fleet;
mod handler;
pub mod inventory;
mod maintenance;

use compliance::{posture, run};
pub use context::{Clock, Context};
use fleet::schedule;
pub use fleet::{EXIT_STUCK, Error, QueueSettings, Settings, WorkerProcess};
pub use handler::Handlers;
use inventory::import;
use jobs::{compliance::run::RunShard, inventory::import::ImportChunk};
use maintenance::CLEANUP_INTERVAL;
pub use maintenance::{PeriodicTasks, Retention, TaskContext};

/// Returns the handlers of all job kinds.
pub fn handlers() -> Handlers {
    Handlers::new()
        .on(run::shard)
        .on(run::scheduled)
        .on(posture::reevaluate)
        .on(posture::reevaluate_flips)
        .on(posture::refresh)
        .on(posture::verify)
        .on_ended::<RunShard, _, _>(run::shard_ended)
        .on(import::chunk)
        .on(import::sweep)
        .on_ended::<ImportChunk, _, _>(import::chunk_ended)
}

/// Returns the periodic tasks of all modules.
pub fn periodic_tasks() -> PeriodicTasks {
    PeriodicTasks::new()
        .at_every_tick("push the jobs of due schedules", schedule::push_due)
        .at_interval(posture::MISSING_INTERVAL, "push re-evaluations", posture::push_missing)
        .at_interval(
            CLEANUP_INTERVAL,
            "push the verification of postures",
            posture::push_next_verification,
        )
        .at_interval(CLEANUP_INTERVAL, "delete old import runs", import::delete_old)
        .at_interval(CLEANUP_INTERVAL, "delete old sessions and invitations", access::delete_old)
}
