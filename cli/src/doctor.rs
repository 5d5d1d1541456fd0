//! `sentryops doctor`: whether the configuration, and what it points at, would do. Exit code 1 where something would not.

use std::{fmt::Write, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Args;

use crate::{
    config::{Config, Environment},
    database::Stores,
    embedded,
};

/// What to look at.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Print every setting with its default, and check nothing.
    #[arg(long)]
    pub(crate) settings: bool,
}

/// What came of one check.
enum Finding {
    Good(String),
    Note(String),
    Bad(String),
}

pub(crate) async fn run(config: &Config) -> Result<ExitCode> {
    let mut findings =
        vec![Finding::Good("the configuration is complete and every value can be used".to_owned())];
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
            "ENVIRONMENT is development: introspection, playground and a cheaper password hash"
                .into(),
        ));
    } else {
        if config.graphql.introspection {
            findings.push(Finding::Note("GRAPHQL_INTROSPECTION is on in production".into()));
        }
        if config.graphql.playground {
            findings.push(Finding::Note("GRAPHQL_PLAYGROUND is on in production".into()));
        }
    }
    if !config.health.ip().is_loopback() {
        findings.push(Finding::Note(
            "HEALTH_ADDR is reachable from other machines: metrics have no sign-in".into(),
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
            "Postgres is private, below {}",
            config.data_dir.display()
        )));
    }
    match stores.pool(1) {
        Err(error) => findings.push(Finding::Bad(format!("{error:#}"))),
        Ok(db) => {
            findings.push(match db.check_login().await {
                Ok(()) => Finding::Good(
                    "the login may do nothing by itself and takes the three roles".into(),
                ),
                Err(refusal) => Finding::Bad(refusal.to_string()),
            });
            let latest = migrations::latest();
            findings.push(match db.schema_version().await {
                Ok(version) if version == latest => {
                    Finding::Good(format!("the schema is at {version}"))
                }
                Ok(version) if version > latest => Finding::Note(format!(
                    "the schema is at {version}, newer than this version's {latest}"
                )),
                Ok(version) => Finding::Bad(format!(
                    "the schema is at {version} of {latest}: run `sentryops migrate up`"
                )),
                Err(error) => Finding::Bad(format!("the schema's version cannot be read: {error}")),
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
            Ok(()) => Finding::Good("Redis is private, started by `up`".into()),
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
