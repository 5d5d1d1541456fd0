//! Rules, runs, findings, scores and reports.

mod evidence;
mod quota;
mod rule;
mod run;
