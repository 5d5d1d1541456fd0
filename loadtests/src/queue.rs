//! The scenario `queue`: throughput and latency of the job queue, and jobs lost while processes and stores are killed.
//! A store is Postgres or Redis.
//!
//! | file | contents |
//! |---|---|
//! | `bench` | the stores, and the processes that push and claim jobs |
//! | `ledger` | a record of every job event, and the checks of the outcomes |
//! | `rate`, `kill`, `runs`, `poison`, `outage` | the parts of the scenario |
//! | `store` | Postgres and Redis processes that are crashed and restarted |
//!
//! The program that pushes and claims the jobs is the drill: the example `drill` of the crate `workers`. The scenario
//! runs under `sentryops services`, with durable settings: fsync, synchronous commits, full-page writes. The scenario
//! fails only if jobs are lost, duplicated or incorrect. A missed target does not fail the scenario, because other
//! processes share the machine.

mod bench;
mod kill;
mod ledger;
mod outage;
mod poison;
mod rate;
mod runs;
mod store;

use std::{
    fs::File,
    io::Write,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::{
    folder::Folder,
    load::percentile,
    measurement::{Measurement, Report},
    options::{DataOptions, Options},
    random,
    report::progress,
    stores,
};
use bench::QueueBench;

/// Arguments of the `queue` scenario.
#[derive(Args)]
#[command(mut_arg("quick", |quick| quick.help("Smoke test: fewer jobs and fewer kills")))]
pub(crate) struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Path of the example `drill` of the crate `workers`, which pushes and claims jobs.
    #[arg(long, default_value = "target/release/examples/drill")]
    drill: PathBuf,
    /// Runs only these parts; default all.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART,…")]
    only: Vec<Part>,
    #[command(flatten)]
    data: DataOptions,
}

/// A part of the queue scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Throughput while a backlog of no-op jobs is drained.
    Drain,
    /// Throughput of jobs that only wait, from one to eight processes.
    Sleep,
    /// Throughput of pushing jobs, without workers.
    Enqueue,
    /// Latency from push to start, with and without Redis.
    Latency,
    /// Completion time of a small batch that is pushed after a large one.
    Fairness,
    /// Worker processes killed at random times.
    Kill,
    /// Compliance runs while worker processes are killed.
    Runs,
    /// Jobs that panic, abort the process, never await, or allocate memory.
    Poison,
    /// Redis flushed, unresponsive and killed.
    Redis,
    /// Postgres crashed and restarted repeatedly.
    Postgres,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<()> {
    let options = &arguments.options;
    let circumstances = options.circumstances()?;
    if !arguments.data.inside {
        let missing = || {
            format!(
                "cannot open {}; build it with `cargo build -p workers --release --example drill`",
                arguments.drill.display()
            )
        };
        File::open(&arguments.drill).with_context(missing)?;
        return stores::exec_under_services(&options.binary);
    }
    let seed = random::seed(arguments.data.seed)?;
    let mut bench =
        QueueBench::prepare(&options.binary, &arguments.drill, options.quick, seed).await?;
    let mut measurements = vec![disk(&bench.folder)?];
    for part in Part::value_variants() {
        if !arguments.only.is_empty() && !arguments.only.contains(part) {
            continue;
        }
        progress(&format!("queue: {part:?}"));
        measurements.push(take(*part, &mut bench).await.with_context(|| format!("{part:?}"))?);
    }
    let setting = "durable (fsync, synchronous_commit and full_page_writes are on)".to_owned();
    let report = Report { scenario: "queue", setting, circumstances, seed, measurements };
    report.publish(options.json.as_deref())
}

async fn take(part: Part, bench: &mut QueueBench) -> Result<Measurement> {
    match part {
        Part::Drain => rate::noop(bench).await,
        Part::Sleep => rate::sleep(bench).await,
        Part::Enqueue => rate::enqueue(bench).await,
        Part::Latency => rate::latency(bench).await,
        Part::Fairness => rate::fairness(bench).await,
        Part::Kill => kill::run(bench).await,
        Part::Runs => runs::run(bench).await,
        Part::Poison => poison::run(bench).await,
        Part::Redis => outage::redis(bench).await,
        Part::Postgres => outage::postgres(bench).await,
    }
}

/// Measures the cost of a commit on this disk: the time to write and sync a page. The file is in the temporary folder,
/// like the database.
fn disk(folder: &Folder) -> Result<Measurement> {
    let mut file = File::create(folder.path().join("sync"))?;
    let mut took = Vec::new();
    for _ in 0..200 {
        let began = Instant::now();
        file.write_all(&[1; 8192])?;
        file.sync_data()?;
        took.push(began.elapsed());
    }
    took.sort_unstable();
    let median = percentile(&took, 50).unwrap_or(Duration::ZERO).as_secs_f64() * 1e6;
    let mut measurement =
        Measurement::new("disk", "An 8 KiB page is written and synced; median of 200.");
    measurement.figure("write and sync of a page", median, "µs");
    Ok(measurement)
}
