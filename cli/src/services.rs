//! `sentryops services -- COMMAND`: runs a command with a private, empty Postgres and Redis, whose data is deleted at
//! the end.

use std::{os::unix::process::ExitStatusExt, process::ExitCode};

use anyhow::{Context, Result};
use clap::Args;

use crate::{
    database::connect,
    embedded::{Requested, Services},
};

/// Arguments of `services`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The command and its arguments, after `--`.
    #[arg(required = true, last = true)]
    command: Vec<String>,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let services = Services::start_scratch(Requested::BOTH).await?;
    let status = execute(&arguments.command, &services).await;
    services.stop().await?;
    status
}

async fn execute(command: &[String], services: &Services) -> Result<ExitCode> {
    let urls = services.database.as_ref().context("the private Postgres did not start")?;
    let redis = services.redis_url.as_ref().context("the private Redis did not start")?;
    {
        let (mut client, _connection) = connect(&urls.admin).await?;
        migrations::roles(&mut client, "sentryops").await?;
        let (mut client, _connection) = connect(&urls.owner).await?;
        migrations::up(&mut client).await?;
    }
    let (program, arguments) = command.split_first().context("no command was given after `--`")?;
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .env("DATABASE_URL", &urls.app)
        .env("DATABASE_OWNER_URL", &urls.owner)
        .env("TEST_ADMIN_URL", &urls.admin)
        .env("REDIS_URL", redis)
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    // SIGINT (Ctrl-C) reaches the command directly, because the command is in our process group. SIGTERM is forwarded,
    // so that the command can shut down gracefully.
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {
                if let Some(pid) = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM); // Fails if the command has just ended.
                }
            }
        }
    };
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
