//! The binary `sentryops`: configuration, telemetry, embedded services, commands.
//!
//! | file | noun |
//! |---|---|
//! | `config`, `telemetry` | what the environment says, and what we say |
//! | `embedded` | private Postgres and Redis as children |
//! | `database` | where Postgres and Redis are, given or private; roles and migrations on them |
//! | `process` | what every serving process has: database, hints, health |
//! | `serve`, `worker` | the API of one process; the fleet of one process |
//! | `up`, `demo` | everything in one process; the demo organization |
//! | `admin`, `migrate`, `services`, `doctor` | a command each |

// The layout of what the root query awaits is as deep as what it can be asked.
#![recursion_limit = "256"]

mod admin;
mod config;
mod database;
mod demo;
mod doctor;
mod embedded;
mod migrate;
mod process;
mod serve;
mod services;
mod telemetry;
mod up;
mod worker;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use config::Config;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A self-hosted IT operations command center.
#[derive(Parser)]
#[command(name = "sentryops", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything in one process: private Postgres and Redis where none are given, migrations, API, workers.
    Up(up::Arguments),
    /// The GraphQL server. Stateless: start as many as you like.
    Api,
    /// The worker fleet. Stateless: start as many as you like.
    Worker(worker::Arguments),
    /// Versioned migrations of the database, and its roles.
    Migrate(migrate::Arguments),
    /// Run a command with a private, empty Postgres and Redis in its environment.
    Services(services::Arguments),
    /// Organizations and people, from the command line.
    Admin(admin::Arguments),
    /// Print the GraphQL schema.
    Schema,
    /// Check the configuration and what it points at.
    Doctor(doctor::Arguments),
}

impl Command {
    const fn config(&self) -> config::Command {
        match self {
            Self::Up(_) => config::Command::Up,
            Self::Api => config::Command::Api,
            Self::Worker(_) => config::Command::Worker,
            Self::Migrate(_) => config::Command::Migrate,
            Self::Services(_) => config::Command::Services,
            Self::Admin(_) => config::Command::Admin,
            Self::Schema => config::Command::Schema,
            Self::Doctor(_) => config::Command::Doctor,
        }
    }
}

fn main() -> ExitCode {
    // First of all: rustls takes no provider by itself where two could serve.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let command = Arguments::parse().command;
    // Neither of these depends on a configuration that is right.
    match &command {
        Command::Schema => return print(&graphql::sdl()),
        Command::Doctor(arguments) if arguments.settings => return print(&config::markdown()),
        _ => {}
    }
    let config = match Config::from_env(command.config()) {
        Ok(config) => config,
        Err(faults) => {
            eprint!("{}", config::render(&faults));
            return ExitCode::from(config::EXIT_CODE);
        }
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("sentryops: there are no threads to run on: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(Box::pin(run(command, config)));
    // Waits for nobody: a job that does not stop would keep this process from ending.
    runtime.shutdown_background();
    ended.unwrap_or_else(|error| {
        eprintln!("sentryops: {error:#}");
        match error.downcast_ref() {
            Some(workers::Error::Stuck) => ExitCode::from(workers::EXIT_STUCK),
            _ => ExitCode::FAILURE,
        }
    })
}

async fn run(command: Command, config: Config) -> anyhow::Result<ExitCode> {
    telemetry::start(&config.log)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    match command {
        Command::Up(arguments) => Box::pin(up::run(arguments, config)).await,
        Command::Api => serve::run(config).await,
        Command::Worker(arguments) => worker::run(arguments, config).await,
        Command::Migrate(arguments) => migrate::run(arguments, &config).await,
        Command::Services(arguments) => services::run(arguments).await,
        Command::Admin(arguments) => admin::run(arguments, &config).await,
        Command::Doctor(_) => doctor::run(&config).await,
        Command::Schema => unreachable!("printed above, before there was a configuration"),
    }
}

/// What a command has to say, on standard output; a reader that went away is no failure of ours.
fn print(text: &str) -> ExitCode {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// The time at which a command acts.
#[expect(
    clippy::disallowed_methods,
    reason = "the command line is an edge: below it, time comes in"
)]
fn now() -> chrono::DateTime<chrono::Utc> {
    chrono::Utc::now()
}
