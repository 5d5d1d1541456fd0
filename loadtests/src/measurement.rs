//! Measurements of a scenario: figures with optional targets, and checks. A failed check fails the scenario; a missed
//! target does not.

use std::{path::Path, time::Duration};

use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::Value;

use crate::{
    load::percentile,
    report::{self, Circumstances, Table, whole},
};

/// The report of a scenario with several parts.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Name of the scenario's subcommand.
    pub(crate) scenario: &'static str,
    /// Conditions of the scenario, such as durable stores.
    pub(crate) setting: String,
    /// The binary and the machine of the run.
    pub(crate) circumstances: Circumstances,
    /// Seed of the run's random numbers.
    pub(crate) seed: u64,
    /// Measurements by part. The JSON key stays `findings`, for compatibility with earlier reports.
    #[serde(rename = "findings")]
    pub(crate) measurements: Vec<Measurement>,
}

impl Report {
    /// Prints the report, and writes it to `file` as JSON if given.
    ///
    /// # Errors
    /// Fails with one line per failed check.
    pub(crate) fn publish(&self, file: Option<&Path>) -> Result<()> {
        report::print(&self.render())?;
        report::save(file, self)?;
        let failures: Vec<_> = self.measurements.iter().flat_map(Measurement::failures).collect();
        if !failures.is_empty() {
            bail!("{}", failures.join("\n"));
        }
        Ok(())
    }

    fn render(&self) -> String {
        let Self { scenario, setting, circumstances, seed, measurements } = self;
        let measurements: Vec<_> = measurements.iter().map(Measurement::render).collect();
        let measurements = measurements.join("\n");
        format!("{scenario}: {setting}, seed {seed}\n{}\n{measurements}", circumstances.render())
    }
}

/// A measured number with its unit and, optionally, its target.
#[derive(Debug, Serialize)]
struct Figure {
    what: String,
    value: f64,
    unit: &'static str,
    /// Published target, if any. A missed target does not fail the scenario, because other processes share the machine.
    target: Option<&'static str>,
}

/// A count that must equal the expected value, whatever the speed of the machine.
#[derive(Debug, Serialize)]
struct Check {
    what: String,
    found: i64,
    expected: i64,
    #[serde(rename = "is_right")]
    is_passed: bool,
}

/// Figures and checks of one part of a scenario.
#[derive(Debug, Serialize)]
pub(crate) struct Measurement {
    part: &'static str,
    setting: String,
    figures: Vec<Figure>,
    checks: Vec<Check>,
    /// Rows of several numbers each, for the JSON report.
    #[serde(skip_serializing_if = "Value::is_null")]
    rows: Value,
    /// The same rows as a table, for the printed report.
    #[serde(skip)]
    table: Option<Table>,
}

impl Measurement {
    /// Creates a measurement without figures and checks. `setting` is the sentence printed below its table.
    pub(crate) fn new(part: &'static str, setting: impl Into<String>) -> Self {
        Self {
            part,
            setting: setting.into(),
            figures: Vec::new(),
            checks: Vec::new(),
            rows: Value::Null,
            table: None,
        }
    }

    /// Adds a figure without a target.
    pub(crate) fn figure(&mut self, what: impl Into<String>, value: f64, unit: &'static str) {
        self.figures.push(Figure { what: what.into(), value, unit, target: None });
    }

    /// Adds a figure with a target.
    pub(crate) fn figure_with_target(
        &mut self,
        what: impl Into<String>,
        value: f64,
        unit: &'static str,
        target: &'static str,
    ) {
        self.figures.push(Figure { what: what.into(), value, unit, target: Some(target) });
    }

    /// Sets the rows of several numbers each: as a table for the printed report, and as values for the JSON report.
    pub(crate) fn rows(&mut self, table: Table, rows: &impl Serialize) -> Result<()> {
        self.rows = serde_json::to_value(rows)?;
        self.table = Some(table);
        Ok(())
    }

    /// Adds the 50th, 95th, 99th and 100th percentile of the durations as figures in milliseconds. `target` names the
    /// percentile that has a target.
    pub(crate) fn latencies(
        &mut self,
        what: &str,
        mut took: Vec<Duration>,
        target: Option<(usize, &'static str)>,
    ) {
        took.sort_unstable();
        for share in [50, 95, 99, 100] {
            let value = percentile(&took, share).unwrap_or_default().as_secs_f64() * 1e3;
            match target {
                Some((target_share, target)) if share == target_share => {
                    self.figure_with_target(format!("{what}: p{share}"), value, "ms", target);
                }
                _ => self.figure(format!("{what}: p{share}"), value, "ms"),
            }
        }
    }

    /// Adds a check. The scenario fails if `found` differs from `expected`.
    pub(crate) fn check(&mut self, what: impl Into<String>, found: i64, expected: i64) {
        let is_passed = found == expected;
        self.checks.push(Check { what: what.into(), found, expected, is_passed });
    }

    /// Returns one line for each failed check.
    pub(crate) fn failures(&self) -> impl Iterator<Item = String> {
        let failures = self.checks.iter().filter(|check| !check.is_passed);
        failures.map(|Check { what, found, expected, .. }| {
            format!("{}: {what}: found {found}, expected {expected}", self.part)
        })
    }

    /// Renders the rows, figures and checks as tables.
    pub(crate) fn render(&self) -> String {
        let mut table = Table::new(&[self.part, "measured", "target or expected"]);
        for Figure { what, value, unit, target } in &self.figures {
            let value = if value.abs() < 100.0 { format!("{value:.2}") } else { whole(*value) };
            let target = target.unwrap_or_default().to_owned();
            table.row([what.clone(), format!("{value} {unit}"), target]);
        }
        for Check { what, found, expected, is_passed } in &self.checks {
            let verdict = if *is_passed { "pass" } else { "FAIL" };
            table.row([what.clone(), format!("{found}"), format!("{expected}: {verdict}")]);
        }
        let rows = self.table.as_ref().map(|rows| rows.render() + "\n").unwrap_or_default();
        format!("{rows}{}\n{}\n", table.render(), self.setting)
    }
}

/// Converts a count to the value of a figure. Counts of 2³¹ or more, which do not occur, become NaN.
pub(crate) fn number(count: impl TryInto<i32>) -> f64 {
    count.try_into().map_or(f64::NAN, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failed_check_is_wrong() {
        let mut measurement = Measurement::new("drain", "as it is");
        measurement.figure_with_target("rate", 12.0, "jobs/s", "≥ 50,000");
        measurement.check("lost", 0, 0);
        measurement.check("twice", 2, 0);
        assert_eq!(
            measurement.failures().collect::<Vec<_>>(),
            ["drain: twice: found 2, expected 0"]
        );
        assert!(measurement.render().contains("0: FAIL"));
    }
}
