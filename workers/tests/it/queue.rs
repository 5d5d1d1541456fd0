//! Guarantees of the queue, tested with real workers.

mod ending;
mod failing;
mod history;
mod losing;
mod order;
