//! What a part of a scenario found: figures beside their targets, and checks that decide.

use serde::Serialize;

use crate::report::{Table, whole};

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
pub(crate) struct Finding {
    part: &'static str,
    setting: String,
    figures: Vec<Figure>,
    checks: Vec<Check>,
}

impl Finding {
    /// Nothing found yet.
    pub(crate) fn new(part: &'static str, setting: impl Into<String>) -> Self {
        Self { part, setting: setting.into(), figures: Vec::new(), checks: Vec::new() }
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
        format!("{}\n{}\n", table.render(), self.setting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failed_check_is_wrong() {
        let mut finding = Finding::new("drain", "as it is");
        finding.aimed("rate", 12.0, "jobs/s", "≥ 50,000");
        finding.check("lost", 0, 0);
        finding.check("twice", 2, 0);
        assert_eq!(finding.wrong().collect::<Vec<_>>(), ["drain: twice: 2 instead of 0"]);
        assert!(finding.render().contains("0: WRONG"));
    }
}
