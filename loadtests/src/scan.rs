//! Compliance: runs of organizations of several sizes, single edits, reports, and what is lost while workers are killed.
//!
//! | file | noun |
//! |---|---|
//! | `seeded` | organizations filled by SQL, and what every rule has to say of them |
//! | `run` | a run, started and followed |
//! | `sizes`, `edits`, `paper`, `kill` | the parts |
//!
//! API and workers are processes of their own, so that each one's memory is known, on stores that sync to disk. Only what is
//! lost, doubled or wrong fails the run, and a time that grows faster than the assets; figures stand beside their targets.

mod edits;
mod kill;
mod paper;
mod run;
mod seeded;
mod sizes;

use anyhow::Result;
use clap::Args;

use crate::{
    deployment::Deployment,
    measurement::Report,
    options::{DataOptions, Options},
    random, stores,
};

/// What `scan` is told.
#[derive(Args)]
#[command(mut_arg("quick", |quick| quick.help("Some of everything with few assets: to see that it works")))]
pub(crate) struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Assets of the organizations: 1,000, 10,000 and 100,000, or 1,000 and 5,000 with `--quick`.
    #[arg(long, value_delimiter = ',', value_name = "N,…", value_parser = clap::value_parser!(i64).range(200..))]
    rows: Vec<i64>,
    /// Follows so many edits of single assets to their verdicts, while it is quiet and as many again during runs.
    #[arg(long, value_name = "N")]
    edits: Option<usize>,
    /// Fetches the report of the largest run.
    #[arg(long)]
    report: bool,
    /// Kills a worker in each of some runs.
    #[arg(long)]
    kill: bool,
    /// How many runs those are: 50, or 3 with `--quick`.
    #[arg(long, value_name = "N", requires = "kill")]
    runs: Option<usize>,
    #[command(flatten)]
    data: DataOptions,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<()> {
    let options = &arguments.options;
    let circumstances = options.circumstances()?;
    if !arguments.data.inside {
        return stores::enter(&options.binary);
    }
    let seed = random::seed(arguments.data.seed)?;
    let usual = options.either(vec![1_000, 10_000, 100_000], vec![1_000, 5_000]);
    let mut sizes = if arguments.rows.is_empty() { usual } else { arguments.rows.clone() };
    sizes.sort_unstable();
    let mut deployment = Deployment::open(&options.binary, &["scan", "upkeep"]).await?;
    let (measurement, largest) = sizes::measure(&mut deployment, &sizes, seed).await?;
    let mut measurements = vec![measurement];
    if let Some(edits) = arguments.edits.or(options.quick.then_some(20)) {
        measurements.push(edits::run(&deployment, &largest, edits).await?);
    }
    if arguments.report || options.quick {
        measurements.push(paper::run(&deployment, &largest).await?);
    }
    if arguments.kill || options.quick {
        let assets = options.either(20_000, 5_000);
        let runs = arguments.runs.unwrap_or(options.either(50, 3));
        measurements.push(kill::run(&mut deployment, assets, seed, runs).await?);
    }
    deployment.close().await?;
    let setting = "durable stores".to_owned();
    let report = Report { scenario: "scan", setting, circumstances, seed, measurements };
    report.close(options.json.as_deref())
}
