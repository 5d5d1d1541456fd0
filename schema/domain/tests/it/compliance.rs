//! Rules, runs, findings, waivers, scores, drift and reports.

mod budget;
mod drift;
mod finding;
mod fixture;
mod native;
mod posture;
mod reevaluation;
mod report;
mod rule;
mod run;
mod score;
mod trial;
mod verdict;
mod waiver;
