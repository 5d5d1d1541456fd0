//! Compliance jobs, run by worker processes.

mod posture;
mod run;
