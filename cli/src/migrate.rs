//! `sentryops migrate`: applies, reverts and lists the migrations of the database schema, and creates the database
//! roles.

use std::{fmt::Write, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use migrations::{RolesOutcome, State};

use crate::{
    config::Config,
    database::{Stores, connect, login_of},
};

/// Arguments of `migrate`.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Apply all pending migrations, the oldest first.
    Up,
    /// Revert every migration above a version.
    Down {
        /// Version to keep; 0 reverts all migrations.
        #[arg(long)]
        to: i32,
    },
    /// List the migrations and their states.
    Status,
    /// Create the database roles. If the login lacks the privileges, print the SQL for an
    /// administrator and exit with code 3.
    Roles,
}

/// Exit code of `roles` when it printed SQL for an administrator to run.
const EXIT_SQL_PRINTED: u8 = 3;

pub(crate) async fn run(arguments: Arguments, config: &Config) -> Result<ExitCode> {
    let stores = Stores::for_command(config).await?;
    let result = execute(arguments.action, &stores).await;
    stores.stop().await?;
    let (text, code) = result?;
    crate::print(&text);
    Ok(code)
}

async fn execute(action: Action, stores: &Stores) -> Result<(String, ExitCode)> {
    if let (Some(admin), false) = (&stores.admin, matches!(action, Action::Roles)) {
        // A private cluster may be new, so that its roles do not exist yet.
        let (mut client, _connection) = connect(admin).await?;
        migrations::roles(&mut client, &login_of(&stores.app)?).await?;
    }
    let privileged =
        stores.admin.as_ref().filter(|_| matches!(action, Action::Roles)).or(stores.owner.as_ref());
    let url = privileged.context(
        "DATABASE_OWNER_URL is not set: set it to the URL of the login that owns the tables",
    )?;
    let (mut client, _connection) = connect(url).await?;
    let mut text = String::new();
    // Writing to a String cannot fail.
    match action {
        Action::Up => {
            for applied in migrations::up(&mut client).await? {
                let _ = writeln!(
                    text,
                    "up    {:04} {} in {:.1?}",
                    applied.version, applied.name, applied.elapsed
                );
            }
        }
        Action::Down { to } => {
            for applied in migrations::down(&mut client, to).await? {
                let _ = writeln!(
                    text,
                    "down  {:04} {} in {:.1?}",
                    applied.version, applied.name, applied.elapsed
                );
            }
        }
        Action::Status => {
            for status in migrations::status(&mut client).await? {
                let state = match status.state {
                    State::Applied { at } => format!("applied {}", at.format("%F %T UTC")),
                    State::Changed { at } => {
                        format!("applied {}, but its SQL has CHANGED since", at.format("%F %T UTC"))
                    }
                    State::Pending => "pending".to_owned(),
                    State::Unknown { at } => {
                        format!(
                            "applied {}, unknown to this version of sentryops",
                            at.format("%F %T UTC")
                        )
                    }
                };
                let _ = writeln!(text, "{:04} {:<24} {state}", status.version, status.name);
            }
        }
        Action::Roles => {
            let login = login_of(&stores.app)?;
            match migrations::roles(&mut client, &login).await? {
                RolesOutcome::Unchanged => {
                    text.push_str("all roles exist with the correct rights\n");
                }
                RolesOutcome::Fixed { problems } => {
                    if let Some(password) = password_of_new(&login, &problems, &stores.app)? {
                        migrations::set_password(&client, &login, &password).await?;
                    }
                    for problem in problems {
                        let _ = writeln!(text, "fixed: {problem}");
                    }
                }
                RolesOutcome::NotPermitted { problems } => {
                    for problem in problems {
                        let _ = writeln!(text, "-- problem: {problem}");
                    }
                    text.push_str("-- This login is not allowed to create roles. Have a database administrator run this SQL:\n");
                    text.push_str(&migrations::roles_sql(&login));
                    return Ok((text, ExitCode::from(EXIT_SQL_PRINTED)));
                }
            }
        }
    }
    Ok((text, ExitCode::SUCCESS))
}

/// Returns the password in `DATABASE_URL` if the login did not exist before; otherwise `None`.
fn password_of_new(login: &str, problems: &[String], url: &str) -> Result<Option<String>> {
    let problem = format!("role {login} does not exist");
    if !problems.contains(&problem) {
        return Ok(None);
    }
    let config: tokio_postgres::Config = url.parse().context("DATABASE_URL is invalid")?;
    Ok(config.get_password().map(|password| String::from_utf8_lossy(password).into_owned()))
}
