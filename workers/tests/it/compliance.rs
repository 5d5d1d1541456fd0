//! Compliance through the fleet.

mod posture;
mod run;
