//! The handlers of compliance.

pub mod run;
