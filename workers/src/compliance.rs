//! The handlers of compliance.

pub mod posture;
pub mod run;
