//! GraphQL types and root fields of compliance: rules, runs, findings, scores, waivers, drift, forecast and reports.

pub(crate) mod asset;
pub(crate) mod drift;
pub(crate) mod finding;
pub(crate) mod forecast;
pub(crate) mod posture;
pub(crate) mod quota;
pub(crate) mod report;
pub(crate) mod rule;
pub(crate) mod run;
pub(crate) mod score;
pub(crate) mod waiver;
