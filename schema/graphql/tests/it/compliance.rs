//! Rules, runs, findings, scores and reports.

mod rule;
mod run;
