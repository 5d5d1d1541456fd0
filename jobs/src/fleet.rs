//! Jobs that the worker processes push themselves: the jobs of due schedules.

pub mod schedule;
