//! The fleet: processes that take jobs from the queues and do them.
//!
//! | file | what lives there |
//! |---|---|
//! | `handler` | [`Handlers`]: which function does which kind |
//! | `context` | [`Context`]: what a handler knows of its job, and how it finishes it |
//! | `dispatch` | one attempt: right, time limit, stop, span |
//! | `fleet` | [`Fleet`]: one apalis worker a queue, leases, stop in good order |
//! | `maintenance` | what every process also does: heartbeat, reaping, old history, and [`Duties`], the duties of the wings |
//! | `compliance` | compliance runs; postures, which follow changes between them |
//! | `inventory` | files of assets and dependencies |
//!
//! [`handlers`] and [`duties`] are the two places that know every wing; the files above the wings know none.
//!
//! Every process is the same and any number may run: what has to be done once is claimed from rows.

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
pub use fleet::{EXIT_STUCK, Error, Fleet, QueueSettings, Settings};
pub use handler::Handlers;
use inventory::import;
use jobs::{compliance::run::RunShard, inventory::import::ImportChunk};
use maintenance::TIDY;
pub use maintenance::{Duties, Round};

/// The handlers of this product.
pub fn handlers() -> Handlers {
    Handlers::new()
        .on(run::shard)
        .on(run::scheduled)
        .on(posture::reevaluate)
        .on(posture::flip)
        .on(posture::refresh)
        .on(posture::verify)
        .on_ended::<RunShard, _, _>(run::shard_ended)
        .on(import::chunk)
        .on(import::sweep)
        .on_ended::<ImportChunk, _, _>(import::chunk_ended)
}

/// The duties of this product, besides its jobs.
pub fn duties() -> Duties {
    Duties::new()
        .each_round("push what is due", schedule::push_due)
        .every(posture::FORGOTTEN_EVERY, "follow changes of people", posture::reevaluate_forgotten)
        .every(TIDY, "ask for the comparison of postures", posture::ask_to_verify)
        .every(TIDY, "tidy the history", import::forget)
}
