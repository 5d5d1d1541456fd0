//! What a scenario found: figures beside their targets, and checks that decide.

use std::{path::Path, time::Duration};

use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::Value;

use crate::{
    load::percentile,
    report::{self, Circumstances, Table, whole},
};

/// What a scenario of several parts found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Its name.
    pub(crate) scenario: &'static str,
    /// On what it ran.
    pub(crate) setting: String,
    /// By what and where it ran.
    pub(crate) circumstances: Circumstances,
    /// What randomness began with.
    pub(crate) seed: u64,
    /// By part; `findings` in the JSON, as in reports of before.
    #[serde(rename = "findings")]
    pub(crate) measurements: Vec<Measurement>,
}

impl Report {
    /// Prints it, and saves it if that was asked for.
    ///
    /// # Errors
    /// When a check failed, with all that is wrong.
    pub(crate) fn close(&self, file: Option<&Path>) -> Result<()> {
        report::print(&self.render())?;
        report::save(file, self)?;
        let wrong: Vec<_> = self.measurements.iter().flat_map(Measurement::wrong).collect();
        if !wrong.is_empty() {
            bail!("{}", wrong.join("\n"));
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

/// One number.
#[derive(Debug, Serialize)]
struct Figure {
    what: String,
    value: f64,
    unit: &'static str,
    /// What we promise, where we do. Said, not held against the run: the machine is shared.
    target: Option<&'static str>,
}

/// Something that is right or wrong on any machine.
#[derive(Debug, Serialize)]
struct Check {
    what: String,
    found: i64,
    expected: i64,
    is_right: bool,
}

/// One part of the scenario.
#[derive(Debug, Serialize)]
pub(crate) struct Measurement {
    part: &'static str,
    setting: String,
    figures: Vec<Figure>,
    checks: Vec<Check>,
    /// What has more than one number a row, for programs.
    #[serde(skip_serializing_if = "Value::is_null")]
    rows: Value,
    /// The same for people.
    #[serde(skip)]
    table: Option<Table>,
}

impl Measurement {
    /// Nothing found yet.
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

    /// A number without a target.
    pub(crate) fn figure(&mut self, what: impl Into<String>, value: f64, unit: &'static str) {
        self.figures.push(Figure { what: what.into(), value, unit, target: None });
    }

    /// A number with one.
    pub(crate) fn aimed(
        &mut self,
        what: impl Into<String>,
        value: f64,
        unit: &'static str,
        target: &'static str,
    ) {
        self.figures.push(Figure { what: what.into(), value, unit, target: Some(target) });
    }

    /// Rows of more than one number: as a table, and as they are.
    pub(crate) fn rows(&mut self, table: Table, rows: &impl Serialize) -> Result<()> {
        self.rows = serde_json::to_value(rows)?;
        self.table = Some(table);
        Ok(())
    }

    /// How long something took, each time: percentiles of it, one of them beside its target.
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
                Some((aimed, target)) if share == aimed => {
                    self.aimed(format!("{what}: p{share}"), value, "ms", target);
                }
                _ => self.figure(format!("{what}: p{share}"), value, "ms"),
            }
        }
    }

    /// What must be so.
    pub(crate) fn check(&mut self, what: impl Into<String>, found: i64, expected: i64) {
        let is_right = found == expected;
        self.checks.push(Check { what: what.into(), found, expected, is_right });
    }

    /// What is wrong, as a sentence each.
    pub(crate) fn wrong(&self) -> impl Iterator<Item = String> {
        let wrong = self.checks.iter().filter(|check| !check.is_right);
        wrong.map(|Check { what, found, expected, .. }| {
            format!("{}: {what}: {found} instead of {expected}", self.part)
        })
    }

    /// For people.
    pub(crate) fn render(&self) -> String {
        let mut table = Table::new(&[self.part, "found", "target"]);
        for Figure { what, value, unit, target } in &self.figures {
            let value = if value.abs() < 100.0 { format!("{value:.2}") } else { whole(*value) };
            let target = target.unwrap_or_default().to_owned();
            table.row([what.clone(), format!("{value} {unit}"), target]);
        }
        for Check { what, found, expected, is_right } in &self.checks {
            let word = if *is_right { "right" } else { "WRONG" };
            table.row([what.clone(), format!("{found}"), format!("{expected}: {word}")]);
        }
        let rows = self.table.as_ref().map(|rows| rows.render() + "\n").unwrap_or_default();
        format!("{rows}{}\n{}\n", table.render(), self.setting)
    }
}

/// A count as a figure; none of ours is beyond 2³¹.
pub(crate) fn number(count: impl TryInto<i32>) -> f64 {
    count.try_into().map_or(f64::NAN, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failed_check_is_wrong() {
        let mut measurement = Measurement::new("drain", "as it is");
        measurement.aimed("rate", 12.0, "jobs/s", "≥ 50,000");
        measurement.check("lost", 0, 0);
        measurement.check("twice", 2, 0);
        assert_eq!(measurement.wrong().collect::<Vec<_>>(), ["drain: twice: 2 instead of 0"]);
        assert!(measurement.render().contains("0: WRONG"));
    }
}
