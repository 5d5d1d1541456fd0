//! Output of a scenario: a report with tables on standard output, and a JSON report in a file.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    path::Path,
};

use anyhow::{Context, Result};
use serde::Serialize;

/// A text table with a heading row. The first column contains labels and is left-aligned; the other columns contain
/// numbers and are right-aligned.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Creates a table without rows below its heading.
    pub(crate) fn new(heading: &[&str]) -> Self {
        Self { rows: vec![heading.iter().map(ToString::to_string).collect()] }
    }

    /// Appends a row of cells.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Renders the table as text with aligned columns.
    pub(crate) fn render(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::from(" ");
            for (column, cell) in row.iter().enumerate() {
                let width = width(column);
                // Writing to a String cannot fail.
                let _ = match column {
                    0 => write!(line, " {cell:<width$}"),
                    _ => write!(line, "  {cell:>width$}"),
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Circumstances of a scenario's execution, printed at the head of every report.
#[derive(Debug, Serialize)]
pub(crate) struct Circumstances {
    /// Path of the sentryops binary.
    pub(crate) binary: String,
    /// Version of the binary, as printed by `--version`.
    pub(crate) version: String,
    /// Model name of the processor.
    pub(crate) model: String,
    /// Number of cores available to this process.
    pub(crate) cores: usize,
    /// One-minute load average before the scenario.
    pub(crate) load_average: String,
    /// True for a smoke test with `--quick`; its figures must not be published.
    pub(crate) is_quick: bool,
}

impl Circumstances {
    /// Reads the circumstances of a scenario with this binary.
    ///
    /// # Errors
    /// Fails if the binary cannot be run.
    pub(crate) fn of(binary: &Path, is_quick: bool) -> Result<Self> {
        let version = crate::child::command(binary).arg("--version").output();
        let version = version.with_context(|| format!("cannot run {}", binary.display()))?;
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model =
            cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Ok(Self {
            binary: binary.display().to_string(),
            version: String::from_utf8_lossy(&version.stdout).trim().to_owned(),
            model: model.unwrap_or("an unknown processor").to_owned(),
            cores: std::thread::available_parallelism()?.get(),
            load_average: load.split(' ').next().unwrap_or_default().to_owned(),
            is_quick,
        })
    }

    /// Renders the circumstances as text, with warnings for quick runs and debug builds.
    pub(crate) fn render(&self) -> String {
        let Self { binary, version, model, cores, load_average, .. } = self;
        let mut text = format!(
            "{version} at {binary}; {cores} cores of {model}, load average {load_average}\n"
        );
        if self.is_quick {
            text.push_str("QUICK: a smoke test; do not publish these figures\n");
        }
        if binary.contains("debug") {
            text.push_str(
                "the path of sentryops is that of a DEBUG BUILD, whose times are meaningless\n",
            );
        }
        if cfg!(debug_assertions) {
            text.push_str(
                "DEBUG BUILD of loadtests: the client uses more CPU time than necessary\n",
            );
        }
        text
    }
}

/// Writes text to standard output and flushes it.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush().context("write the report")
}

/// Prints a progress line to standard error, separate from the report.
pub(crate) fn progress(text: &str) {
    eprintln!("loadtests: {text}");
}

/// Writes the report to `file` as JSON; does nothing without `file`.
pub(crate) fn save(file: Option<&Path>, report: &impl Serialize) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    let text = serde_json::to_string_pretty(report)? + "\n";
    fs::write(file, text).with_context(|| format!("write {}", file.display()))
}

/// Formats a number, rounded to a whole number and with thousands separators: `12345.6` as `12,346`.
pub(crate) fn whole(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&["who", "µs"]);
        table.row(["ours".to_owned(), "9".to_owned()]);
        table.row(["theirs".to_owned(), "1,234".to_owned()]);
        assert_eq!(table.render(), "  who        µs\n  ours        9\n  theirs  1,234\n");
    }

    #[test]
    fn thousands_are_set_apart() {
        for (number, text) in
            [(0.0, "0"), (999.4, "999"), (999.5, "1,000"), (1_234_567.0, "1,234,567")]
        {
            assert_eq!(whole(number), text);
        }
    }
}
