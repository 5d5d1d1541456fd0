//! Command-line arguments shared by the scenarios. Each scenario sets its own help text for `--quick`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::report::Circumstances;

/// Arguments shared by all scenarios with measurements.
#[derive(Args)]
pub(crate) struct Options {
    /// Runs a reduced scenario as a smoke test.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Path of the sentryops binary to start.
    #[arg(long, default_value = "target/release/sentryops")]
    pub(crate) binary: PathBuf,
    /// Also writes the report to this file as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

impl Options {
    /// Returns `quick` with `--quick`, otherwise `full`.
    pub(crate) fn either<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// Returns the circumstances of this run for the head of its report.
    ///
    /// # Errors
    /// Fails if the binary is missing or cannot be run.
    pub(crate) fn circumstances(&self) -> Result<Circumstances> {
        Circumstances::of(&self.binary, self.quick)
    }
}

/// Arguments of scenarios that generate their data and run on private stores.
#[derive(Args)]
pub(crate) struct DataOptions {
    /// Seed of the random numbers; by default a new one for each run.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Set by the program itself when it runs under `sentryops services`.
    #[arg(long, hide = true)]
    pub(crate) inside: bool,
}
