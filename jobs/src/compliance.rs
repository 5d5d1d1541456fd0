//! The jobs of compliance.

pub mod posture;
pub mod run;
