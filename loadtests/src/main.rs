//! Load scenarios: start the binary and speak to it as users do.
//!
//! | file | noun |
//! |---|---|
//! | `start`, `read`, `queue`, `import`, `graph`, `scan`, `upgrade` | a scenario each |
//! | `options` | the arguments that they share |
//! | `question` | what `read` asks, and what a right answer is |
//! | `seed` | the organization that `read` asks about |
//! | `inventory` | made-up inventories of any size, as files to import |
//! | `deployment` | an API and workers, each a process of its own, with organizations to fill |
//! | `upload` | a file uploaded for import, and its run |
//! | `server`, `peer` | what is asked: sentryops, and others that answer the same |
//! | `stores` | Postgres and Redis that all of them share in one run |
//! | `statements` | what a server sends to Postgres, counted on the wire |
//! | `load` | a closed loop over keep-alive connections |
//! | `client` | HTTP/1.1 and GraphQL, as little as a client can be |
//! | `usage` | CPU and memory of processes, from `/proc` |
//! | `child` | a process that ends with us |
//! | `folder` | what a run writes, removed with it |
//! | `random` | randomness that a seed repeats |
//! | `measurement` | figures beside their targets, and checks |
//! | `report` | tables for people, JSON for programs |
//!
//! Linux only, because of `/proc`. Client and server share the machine: what the client took, and what neither took, stands
//! beside each number.

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
mod question;
mod queue;
mod random;
mod read;
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

/// Load scenarios of `SentryOps`.
#[derive(Parser)]
#[command(name = "loadtests", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Subcommand)]
enum Scenario {
    /// Seconds from `sentryops up --demo` to the first answer, and memory when idle.
    Start(start::Arguments),
    /// Queries under load: requests per second, latency, CPU and statements per request.
    Read(read::Arguments),
    /// The job queue: its rates and latencies, and what it loses while processes and stores are killed.
    Queue(queue::Arguments),
    /// Blast radii and pages of large inventories: latencies, and whether the counts are right.
    Graph(graph::Arguments),
    /// Writes a made-up inventory as files to import; measures nothing.
    Inventory(inventory::Arguments),
    /// Files imported: rows per second, memory, and what is lost or doubled while workers are killed.
    Import(import::Arguments),
    /// Compliance runs: seconds, rows and memory by size, edits to verdicts, and what is lost while workers are killed.
    Scan(scan::Arguments),
    /// An older binary's folder taken over: sign-ins, keys, cursors, stored jobs and counts. Needs that older binary.
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

/// One thread: what the client takes is then one number, and the second core is the server's.
#[tokio::main(flavor = "current_thread")]
async fn run(scenario: Scenario) -> Result<()> {
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // Whatever wins: dropping the scenario ends what it started.
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
        _ = terminate.recv() => bail!("told to end"),
        _ = interrupt.recv() => bail!("interrupted"),
    }
}
