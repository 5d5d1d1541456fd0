//! Load and fault scenarios: each starts the sentryops binary and drives it over its public interfaces.
//!
//! | file | contents |
//! |---|---|
//! | `start`, `read`, `queue`, `import`, `graph`, `scan`, `upgrade` | one scenario each |
//! | `options` | arguments shared by the scenarios |
//! | `read/attack`, `read/documents` | an attack on the server, and the documents that it sends |
//! | `read_query` | queries that `read` sends, with the check of their responses |
//! | `seed` | the organization that `read` queries |
//! | `inventory` | generated inventories of any size, as files to import |
//! | `deployment` | an API and workers as separate processes, and empty organizations |
//! | `upload` | a file upload and its import run |
//! | `server`, `peer` | servers under load: sentryops, and others that return the same responses |
//! | `stores` | Postgres and Redis shared by all servers of a run |
//! | `statements` | counts of the statements that a server sends to Postgres |
//! | `load` | closed-loop load over keep-alive connections |
//! | `client` | a minimal HTTP/1.1 and GraphQL client |
//! | `usage` | CPU time and memory of processes, from `/proc` |
//! | `child` | a child process that is stopped when dropped |
//! | `folder` | a temporary folder, removed when dropped |
//! | `random` | reproducible random numbers from a seed |
//! | `measurement` | figures with their targets, and pass/fail checks |
//! | `report` | the printed report and the JSON report |
//!
//! Linux only, because of `/proc`. Client and server share the machine. `read` therefore also reports the CPU time of
//! the client, and the percentage of the machine's CPU time that other processes used.

mod child;
mod client;
mod deployment;
mod folder;
mod graph;
mod import;
mod inventory;
mod load;
mod measurement;
mod options;
mod peer;
mod queue;
mod random;
mod read;
mod read_query;
mod report;
mod scan;
mod seed;
mod server;
mod start;
mod statements;
mod stores;
mod upgrade;
mod upload;
mod usage;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

/// Load and fault scenarios of `SentryOps`.
#[derive(Parser)]
#[command(name = "loadtests", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Subcommand)]
enum Scenario {
    /// Startup: seconds from `sentryops up --demo` to the first response, and memory when idle.
    Start(start::Arguments),
    /// Queries under load: throughput, latency, CPU time and statements per request.
    Read(read::Arguments),
    /// The job queue: throughput, latency, and jobs lost while processes and stores are killed.
    Queue(queue::Arguments),
    /// Blast radii and pages of large inventories: latency, and a check of the counts.
    Graph(graph::Arguments),
    /// Writes a generated inventory as files to import; measures nothing.
    Inventory(inventory::Arguments),
    /// File imports: rows per second, memory, and rows lost or duplicated while workers are killed.
    Import(import::Arguments),
    /// Compliance runs: duration, rows and memory by size, latency from edit to verdict, and losses while workers are
    /// killed.
    Scan(scan::Arguments),
    /// Upgrade of an older version's data folder: sign-ins, keys, cursors, stored jobs and counts. Needs the older
    /// binary.
    Upgrade(upgrade::Arguments),
}

fn main() -> ExitCode {
    match run(Arguments::parse().scenario) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadtests: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the scenario on a single thread, so that the other core is free for the server.
#[tokio::main(flavor = "current_thread")]
async fn run(scenario: Scenario) -> Result<()> {
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // If a signal arrives first, the scenario is dropped, which stops the processes that it started.
    tokio::select! {
        done = async {
            match scenario {
                Scenario::Start(arguments) => start::run(&arguments).await,
                Scenario::Read(arguments) => read::run(&arguments).await,
                Scenario::Queue(arguments) => queue::run(&arguments).await,
                Scenario::Graph(arguments) => graph::run(&arguments).await,
                Scenario::Inventory(arguments) => inventory::run(&arguments),
                Scenario::Import(arguments) => import::run(&arguments).await,
                Scenario::Scan(arguments) => scan::run(&arguments).await,
                Scenario::Upgrade(arguments) => upgrade::run(&arguments).await,
            }
        } => done,
        _ = terminate.recv() => bail!("terminated by SIGTERM"),
        _ = interrupt.recv() => bail!("interrupted by SIGINT"),
    }
}
