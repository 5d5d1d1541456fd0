//! The scenario `scan`: compliance runs of organizations of several sizes, single edits, reports, and losses while
//! workers are killed.
//!
//! | file | contents |
//! |---|---|
//! | `seeded` | organizations filled by SQL, and the expected verdicts of every rule |
//! | `run` | a compliance run, started and polled over HTTP |
//! | `sizes`, `edits`, `report`, `kill` | the parts of the scenario |
//!
//! API and workers are separate processes, so that the memory of each can be measured. The stores sync to disk. The
//! scenario fails if results are lost, duplicated or incorrect, or if the duration of a run grows faster than the
//! number of assets. A missed target does not fail the scenario.

mod edits;
mod kill;
mod report;
mod run;
mod seeded;
mod sizes;

use anyhow::Result;
use clap::Args;

use crate::{
    deployment::{Deployment, Tenant},
    measurement::Report,
    options::{DataOptions, Options},
    random, stores,
};

/// Arguments of the `scan` scenario.
#[derive(Args)]
#[command(mut_arg("quick", |quick| quick.help("Smoke test: all parts, with few assets")))]
pub(crate) struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Numbers of assets in the organizations; default 1,000, 10,000 and 100,000, or 1,000 and 5,000 with `--quick`.
    #[arg(long, value_delimiter = ',', value_name = "N,…", value_parser = clap::value_parser!(i64).range(200..))]
    rows: Vec<i64>,
    /// Measures the latency from edit to verdict for N edits without load, and for N edits during compliance runs.
    #[arg(long, value_name = "N")]
    edits: Option<usize>,
    /// Also downloads the report of the largest run.
    #[arg(long)]
    report: bool,
    /// Also kills a worker during each of several runs.
    #[arg(long)]
    kill: bool,
    /// Number of runs with a kill; default 50, or 3 with `--quick`.
    #[arg(long, value_name = "N", requires = "kill")]
    runs: Option<usize>,
    #[command(flatten)]
    data: DataOptions,
}

/// Runs a compliance run of all assets and waits until it has succeeded.
pub(crate) async fn complete_run(deployment: &Deployment, tenant: &Tenant) -> Result<()> {
    run::Run::start(deployment, tenant).await?.wait(|_| Ok(())).await.map(drop)
}

pub(crate) async fn run(arguments: &Arguments) -> Result<()> {
    let options = &arguments.options;
    let circumstances = options.circumstances()?;
    if !arguments.data.inside {
        return stores::exec_under_services(&options.binary);
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
        measurements.push(report::run(&deployment, &largest).await?);
    }
    if arguments.kill || options.quick {
        let assets = options.either(20_000, 5_000);
        let runs = arguments.runs.unwrap_or(options.either(50, 3));
        measurements.push(kill::run(&mut deployment, assets, seed, runs).await?);
    }
    deployment.close().await?;
    let setting = "durable stores".to_owned();
    let report = Report { scenario: "scan", setting, circumstances, seed, measurements };
    report.publish(options.json.as_deref())
}
