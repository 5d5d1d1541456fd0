//! Rules, runs, findings, scores and reports.

mod evidence;
mod rule;
mod run;
