//! Compliance runs through the fleet.

mod run;
