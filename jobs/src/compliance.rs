//! Compliance jobs: re-evaluation of postures, and compliance runs.

pub mod posture;
pub mod run;
