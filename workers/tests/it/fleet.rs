//! Schedules through the fleet.

mod schedule;
