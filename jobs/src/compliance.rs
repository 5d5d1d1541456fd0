//! The jobs of compliance.

pub mod run;
