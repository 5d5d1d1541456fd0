//! `sentryops doctor`: checks the configuration, and the Postgres and Redis that it points to. Exit code 1 if a check
//! fails.

use std::{fmt::Write, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Args;

use crate::{
    config::{Config, Environment},
    database::Stores,
    embedded,
};

/// Arguments of `doctor`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Print every setting with its default and description, without checking anything.
    #[arg(long)]
    pub(crate) settings: bool,
}

/// Result of one check, with its sentence.
enum Finding {
    Good(String),
    Note(String),
    Bad(String),
}

pub(crate) async fn run(config: &Config) -> Result<ExitCode> {
    let mut findings =
        vec![Finding::Good("the configuration is complete and every value is valid".to_owned())];
    findings.extend(settings(config));
    findings.extend(database(config).await);
    findings.push(redis(config).await);
    let mut text = String::new();
    let mut bad = 0;
    for finding in &findings {
        // Writing to a String cannot fail.
        let _ = match finding {
            Finding::Good(what) => writeln!(text, "ok    {what}"),
            Finding::Note(what) => writeln!(text, "note  {what}"),
            Finding::Bad(what) => {
                bad += 1;
                writeln!(text, "BAD   {what}")
            }
        };
    }
    crate::print(&text);
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn settings(config: &Config) -> Vec<Finding> {
    let mut findings: Vec<_> = config.warnings.iter().cloned().map(Finding::Note).collect();
    if config.environment == Environment::Development {
        findings.push(Finding::Note(
            "ENVIRONMENT is development: by default, introspection and playground are on and password hashes are cheaper"
                .into(),
        ));
    } else {
        if config.graphql.introspection {
            findings.push(Finding::Note(
                "GRAPHQL_INTROSPECTION is on in production: set it to false unless you need it"
                    .into(),
            ));
        }
        if config.graphql.playground {
            findings.push(Finding::Note(
                "GRAPHQL_PLAYGROUND is on in production: set it to false unless you need it".into(),
            ));
        }
    }
    if !config.health.ip().is_loopback() {
        findings.push(Finding::Note(
            "HEALTH_ADDR is reachable from other machines, and /metrics needs no sign-in: restrict access to it".into(),
        ));
    }
    findings
}

async fn database(config: &Config) -> Vec<Finding> {
    let stores = match Stores::visit(config).await {
        Ok(stores) => stores,
        Err(error) => return vec![Finding::Bad(format!("Postgres: {error:#}"))],
    };
    let mut findings = Vec::new();
    if config.database_url.is_none() {
        findings.push(Finding::Good(format!(
            "Postgres is private, in the data folder {}",
            config.data_dir.display()
        )));
    }
    match stores.pool(1) {
        Err(error) => findings.push(Finding::Bad(format!("{error:#}"))),
        Ok(db) => {
            findings.push(match db.check_login().await {
                Ok(()) => Finding::Good(
                    "the database login has no rights of its own and can assume the three roles"
                        .into(),
                ),
                Err(refusal) => Finding::Bad(refusal.to_string()),
            });
            let latest = migrations::latest();
            findings.push(match db.schema_version().await {
                Ok(version) if version == latest => {
                    Finding::Good(format!("the database schema is current, at version {version}"))
                }
                Ok(version) if version > latest => Finding::Note(format!(
                    "the database schema is at version {version}, newer than the {latest} of this program"
                )),
                Ok(version) => Finding::Bad(format!(
                    "the database schema is at version {version}, but this program needs {latest}: run `sentryops migrate up`"
                )),
                Err(error) => Finding::Bad(format!("the version of the database schema cannot be read: {error}")),
            });
        }
    }
    if let Err(error) = stores.stop().await {
        findings.push(Finding::Bad(format!("the private Postgres did not stop: {error:#}")));
    }
    findings
}

async fn redis(config: &Config) -> Finding {
    let Some(url) = &config.redis_url else {
        return match embedded::check_redis() {
            Ok(()) => Finding::Good("Redis is private, and `up` starts it".into()),
            Err(error) => Finding::Bad(format!("{error:#}")),
        };
    };
    let redis = match jobs::Redis::open(url.expose().as_str()) {
        Ok(redis) => redis,
        Err(error) => return Finding::Bad(format!("REDIS_URL: {error}")),
    };
    match redis.ready(Duration::from_secs(5)).await {
        Ok(()) => Finding::Good("Redis answers".into()),
        Err(error) => Finding::Bad(format!("Redis: {error}")),
    }
}
