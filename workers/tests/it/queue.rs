//! What the queue promises, kept by real workers.

mod ending;
mod failing;
mod history;
mod losing;
mod order;
