//! The fleet: processes that take jobs from the queues and do them.
//!
//! | file | what lives there |
//! |---|---|
//! | `handler` | [`Handlers`]: which function does which kind |
//! | `context` | [`Context`]: what a handler knows of its job, and how it finishes it |
//! | `dispatch` | one attempt: right, time limit, stop, span |
//! | `fleet` | [`Fleet`]: one apalis worker a queue, leases, stop in good order |
//! | `tend` | what every process also does: reaping, beating, due schedules, old history |
//! | `scan` | compliance runs, and following changes between them |
//! | `import` | files of assets and dependencies |
//!
//! Every process is the same and any number may run: what has to be done once is claimed from rows.

mod context;
mod dispatch;
mod fleet;
mod handler;
pub mod import;
pub mod scan;
mod tend;

pub use context::{Clock, Context};
pub use fleet::{EXIT_STUCK, Error, Fleet, QueueSettings, Settings};
pub use handler::Handlers;
use jobs::{import::ImportChunk, scan::ScanShard};

/// The handlers of this product.
pub fn handlers() -> Handlers {
    Handlers::new()
        .on(scan::shard)
        .on(scan::scheduled)
        .on(scan::follow)
        .on(scan::turn)
        .on(scan::refresh)
        .on(scan::verify)
        .on_ended::<ScanShard, _, _>(scan::shard_ended)
        .on(import::chunk)
        .on(import::sweep)
        .on_ended::<ImportChunk, _, _>(import::chunk_ended)
}
