//! The arguments that scenarios share. Each says for itself what `--quick` leaves out.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::report::Circumstances;

/// Arguments of every scenario that measures.
#[derive(Args)]
pub(crate) struct Options {
    /// Less of everything: to see that it works.
    #[arg(long)]
    pub(crate) quick: bool,
    /// The binary to start.
    #[arg(long, default_value = "target/release/sentryops")]
    pub(crate) binary: PathBuf,
    /// Writes the report as JSON, too.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

impl Options {
    /// One of two, by how long the run may take.
    pub(crate) fn either<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// The circumstances of this run.
    ///
    /// # Errors
    /// The binary is missing.
    pub(crate) fn circumstances(&self) -> Result<Circumstances> {
        Circumstances::of(&self.binary, self.quick)
    }
}

/// Arguments of scenarios that make up their data, and run on private stores.
#[derive(Args)]
pub(crate) struct DataOptions {
    /// What randomness begins with; a new one each time without it.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// We run under `sentryops services` already.
    #[arg(long, hide = true)]
    pub(crate) inside: bool,
}
