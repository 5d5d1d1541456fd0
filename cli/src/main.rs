//! The binary `sentryops`: configuration, telemetry, embedded services, commands.
//!
//! | file | contents |
//! |---|---|
//! | `config`, `telemetry` | settings from the environment; logs |
//! | `embedded` | private Postgres and Redis as child processes |
//! | `database` | URLs of Postgres and Redis, set or private; database roles and migrations |
//! | `process` | base of every serving process: database, Redis, health |
//! | `serve`, `worker` | the API of one process; the workers of one process |
//! | `up`, `demo` | everything in one process; the demo organization |
//! | `admin`, `migrate`, `services`, `doctor` | one command each |

// The root query's future nests as deeply as the schema, which exceeds the default limit of 128.
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
    /// Run everything in one process: migrations, API, workers, and a private Postgres and Redis unless URLs are set.
    Up(up::Arguments),
    /// Run the GraphQL server. The server is stateless: run as many replicas as you need.
    Api,
    /// Run the workers. Workers are stateless: run as many replicas as you need.
    Worker(worker::Arguments),
    /// Apply, revert or list database migrations, and create the database roles.
    Migrate(migrate::Arguments),
    /// Run a command with a private, empty Postgres and Redis in its environment.
    Services(services::Arguments),
    /// Create organizations and users, reset passwords, grant fleet permissions, verify postures.
    Admin(admin::Arguments),
    /// Print the GraphQL schema (SDL).
    Schema,
    /// Check the configuration, Postgres and Redis.
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
    // Must be the first statement, because rustls selects no crypto provider automatically if two are compiled in.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let command = Arguments::parse().command;
    // These two commands must work even if the configuration is invalid.
    match &command {
        Command::Schema => return print(&graphql::sdl()),
        Command::Doctor(arguments) if arguments.settings => return print(&config::markdown()),
        _ => {}
    }
    let config = match Config::from_env(command.config()) {
        Ok(config) => config,
        Err(errors) => {
            eprint!("{}", config::render(&errors));
            return ExitCode::from(config::EXIT_CODE);
        }
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("sentryops: cannot start the async runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(Box::pin(run(command, config)));
    // Does not wait for running tasks, because a job that does not stop would keep the process from exiting.
    runtime.shutdown_background();
    result.unwrap_or_else(|error| {
        eprintln!("sentryops: {error:#}");
        match error.downcast_ref() {
            Some(workers::Error::Stuck) => ExitCode::from(workers::EXIT_STUCK),
            _ => ExitCode::FAILURE,
        }
    })
}

async fn run(command: Command, config: Config) -> anyhow::Result<ExitCode> {
    telemetry::init(&config.log)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    match command {
        Command::Up(arguments) => Box::pin(up::run(arguments, config)).await,
        Command::Api => Box::pin(serve::run(config)).await,
        Command::Worker(arguments) => worker::run(arguments, config).await,
        Command::Migrate(arguments) => migrate::run(arguments, &config).await,
        Command::Services(arguments) => services::run(arguments).await,
        Command::Admin(arguments) => admin::run(arguments, &config).await,
        Command::Doctor(_) => doctor::run(&config).await,
        Command::Schema => unreachable!("printed in `main`, before the configuration is read"),
    }
}

/// Writes a command's output to standard output. Write errors, such as a closed pipe, are ignored.
fn print(text: &str) -> ExitCode {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// Returns the current time. The other crates take the time as an argument.
#[expect(
    clippy::disallowed_methods,
    reason = "only the binary reads the clock; the other crates take the time as an argument"
)]
fn now() -> chrono::DateTime<chrono::Utc> {
    chrono::Utc::now()
}
