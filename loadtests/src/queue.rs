//! The job queue: its rates and latencies, and what it loses while processes and stores are killed.
//!
//! | file | noun |
//! |---|---|
//! | `bench` | the stores, and processes that push and take jobs |
//! | `ledger` | what became of jobs, and whether that is right |
//! | `rate`, `kill`, `runs`, `poison`, `outage` | the parts |
//! | `store` | Postgres and Redis, crashed and started again |
//!
//! Jobs are those of the example `drill` of the crate `workers`. Everything runs under `sentryops services`, made durable
//! first: fsync, synchronous commits, whole pages. Only what is lost, doubled or wrong fails the run; figures stand beside
//! their targets, since the machine is shared with whoever else is on it.

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

/// What `queue` is told.
#[derive(Args)]
#[command(mut_arg("quick", |quick| quick.help("Fewer jobs and fewer kills: to see that it works")))]
pub(crate) struct Arguments {
    #[command(flatten)]
    options: Options,
    /// The example of the crate `workers` that pushes and takes jobs.
    #[arg(long, default_value = "target/release/examples/drill")]
    drill: PathBuf,
    /// These parts only.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART,…")]
    only: Vec<Part>,
    #[command(flatten)]
    data: DataOptions,
}

/// A part of the scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// A backlog of jobs that do nothing.
    Drain,
    /// Jobs that wait, in more and more processes.
    Sleep,
    /// Pushing.
    Enqueue,
    /// From the push to the start.
    Latency,
    /// A small batch behind a large one.
    Fairness,
    /// Workers killed at random moments.
    Kill,
    /// Compliance runs while workers are killed.
    Runs,
    /// Jobs that panic, abort, never end, or take memory.
    Poison,
    /// Redis emptied, silent, gone.
    Redis,
    /// Postgres crashed again and again.
    Postgres,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<()> {
    let options = &arguments.options;
    let circumstances = options.circumstances()?;
    if !arguments.data.inside {
        let missing = || {
            format!(
                "{} is missing: cargo build -p workers --release --example drill",
                arguments.drill.display()
            )
        };
        File::open(&arguments.drill).with_context(missing)?;
        return stores::enter(&options.binary);
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
    report.close(options.json.as_deref())
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

/// What a commit waits for here: a page, written and synced, where the database is, too.
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
    let mut measurement = Measurement::new("disk", "A page written and synced, the median of 200.");
    measurement.figure("a page is synced in", median, "µs");
    Ok(measurement)
}
