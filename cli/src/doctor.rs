//! `sentryops doctor`: checks the configuration, Postgres and Redis. Exit code 1 if a check fails.

use std::{fmt::Write, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Args;
use domain::{Db, Origin, access::api_key::ApiKey};

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

/// Result of one check, with the sentence that `doctor` prints.
enum DoctorResult {
    Passed(String),
    Note(String),
    Failed(String),
}

pub(crate) async fn run(config: &Config) -> Result<ExitCode> {
    let mut results = vec![DoctorResult::Passed(
        "the configuration is complete and every value is valid".to_owned(),
    )];
    results.extend(settings(config));
    results.extend(database(config).await);
    results.push(redis(config).await);
    let mut text = String::new();
    let mut failures = 0;
    for result in &results {
        // Writing to a String cannot fail.
        let _ = match result {
            DoctorResult::Passed(sentence) => writeln!(text, "ok    {sentence}"),
            DoctorResult::Note(sentence) => writeln!(text, "note  {sentence}"),
            DoctorResult::Failed(sentence) => {
                failures += 1;
                writeln!(text, "BAD   {sentence}")
            }
        };
    }
    crate::print(&text);
    Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn settings(config: &Config) -> Vec<DoctorResult> {
    let mut results: Vec<_> = config.warnings.iter().cloned().map(DoctorResult::Note).collect();
    if config.environment == Environment::Development {
        results.push(DoctorResult::Note(
            "ENVIRONMENT is development: by default, introspection and playground are on and password hashes are cheaper"
                .into(),
        ));
    } else {
        if config.graphql.introspection {
            results.push(DoctorResult::Note(
                "GRAPHQL_INTROSPECTION is on in production: set it to false unless you need it"
                    .into(),
            ));
        }
        if config.graphql.playground {
            results.push(DoctorResult::Note(
                "GRAPHQL_PLAYGROUND is on in production: set it to false unless you need it".into(),
            ));
        }
    }
    if !config.health.ip().is_loopback() {
        results.push(DoctorResult::Note(
            "HEALTH_ADDR is reachable from other machines, and /metrics needs no sign-in: restrict access to it".into(),
        ));
    }
    results
}

async fn database(config: &Config) -> Vec<DoctorResult> {
    let stores = match Stores::for_command(config).await {
        Ok(stores) => stores,
        Err(error) => return vec![DoctorResult::Failed(format!("Postgres: {error:#}"))],
    };
    let mut results = Vec::new();
    if config.database_url.is_none() {
        results.push(DoctorResult::Passed(format!(
            "Postgres is private, in the data folder {}",
            config.data_dir.display()
        )));
    }
    match stores.pool(1) {
        Err(error) => results.push(DoctorResult::Failed(format!("{error:#}"))),
        Ok(db) => {
            results.push(match db.check_login().await {
                Ok(()) => DoctorResult::Passed(
                    "the database login has no rights of its own and can assume the three roles"
                        .into(),
                ),
                Err(error) => DoctorResult::Failed(error.to_string()),
            });
            let latest = migrations::latest();
            let version = db.schema_version().await;
            if version.as_ref().is_ok_and(|version| *version >= latest) {
                results.extend(reduced_keys(&db).await);
            }
            results.push(match version {
                Ok(version) if version == latest => {
                    DoctorResult::Passed(format!("the database schema is current, at version {version}"))
                }
                Ok(version) if version > latest => DoctorResult::Note(format!(
                    "the database schema is at version {version}, newer than the {latest} of this program"
                )),
                Ok(version) => DoctorResult::Failed(format!(
                    "the database schema is at version {version}, but this program needs {latest}: run `sentryops migrate up`"
                )),
                Err(error) => DoctorResult::Failed(format!("the version of the database schema cannot be read: {error}")),
            });
        }
    }
    if let Err(error) = stores.stop().await {
        results.push(DoctorResult::Failed(format!("the private Postgres did not stop: {error:#}")));
    }
    results
}

/// Returns a note on each API key in use that lost permissions which keys can no longer have.
async fn reduced_keys(db: &Db) -> Vec<DoctorResult> {
    let keys = async {
        let tx = db.auth(Origin::system()).await?;
        let keys = ApiKey::reduced(&tx, crate::now()).await?;
        tx.commit().await.map(|()| keys)
    };
    match keys.await {
        Ok(keys) => keys
            .into_iter()
            .map(|(organization, name, lost)| {
                DoctorResult::Note(format!(
                    "the API key {name:?} of the organization {organization} has lost {}, which no key can have: sign in as a user for this work, and replace the key",
                    lost.join(", ")
                ))
            })
            .collect(),
        Err(error) => vec![DoctorResult::Failed(format!("the API keys cannot be read: {error}"))],
    }
}

async fn redis(config: &Config) -> DoctorResult {
    let Some(url) = &config.redis_url else {
        return match embedded::check_redis() {
            Ok(()) => DoctorResult::Passed("Redis is private, and `up` starts it".into()),
            Err(error) => DoctorResult::Failed(format!("{error:#}")),
        };
    };
    let redis = match jobs::Redis::open(url.expose().as_str()) {
        Ok(redis) => redis,
        Err(error) => return DoctorResult::Failed(format!("REDIS_URL: {error}")),
    };
    match redis.ready(Duration::from_secs(5)).await {
        Ok(()) => DoctorResult::Passed("Redis answers".into()),
        Err(error) => DoctorResult::Failed(format!("Redis: {error}")),
    }
}
