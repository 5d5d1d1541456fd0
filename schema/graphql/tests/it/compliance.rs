//! Rules, runs, findings, scores.

mod rule;
mod run;
