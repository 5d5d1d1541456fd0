//! Handlers of compliance jobs.

pub mod posture;
pub mod run;
