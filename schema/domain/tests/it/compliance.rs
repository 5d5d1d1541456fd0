//! Rules, runs, findings, scores.

mod drift;
mod finding;
mod following;
mod judged;
mod native;
mod posture;
mod report;
mod rule;
mod run;
mod score;
mod trial;
mod verdict;
mod waiver;
