//! `sentryops up`: private services, migrations, API and workers in one process. Creates the first users of a new
//! installation.

use std::{
    fmt::Write,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use clap::Args;
use domain::{
    Db, Origin,
    access::{organization::Organization, user::User},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    admin::{self, CreatedUser},
    config::{Config, Environment},
    database::{self, Stores},
    demo,
    process::{Process, stop_on_signal},
    serve::Api,
    worker,
};

/// Arguments of `up`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Load a demo organization, labelled as example data, if it does not exist yet.
    #[arg(long)]
    demo: bool,
}

/// Slug of the first organization. An installation with one team needs no other organization.
const DEFAULT_SLUG: &str = "default";

/// Interval of the log lines during a slow start. Eight seconds, so that less than ten seconds pass between two lines
/// even if the timer fires late.
const STARTING_INTERVAL: Duration = Duration::from_secs(8);

pub(crate) async fn run(arguments: Arguments, mut config: Config) -> Result<ExitCode> {
    if arguments.demo && config.environment == Environment::Production {
        bail!("--demo is not allowed with ENVIRONMENT=production: remove --demo");
    }
    let stop = CancellationToken::new();
    tokio::spawn(stop_on_signal(stop.clone()));
    let starting = AbortOnDropHandle::new(tokio::spawn(log_starting()));
    config.generate_missing_keys()?;
    let mut stores = tokio::select! {
        started = Stores::start(&config) => started?,
        () = stop.cancelled() => return Ok(ExitCode::SUCCESS),
    };
    let served = Box::pin(serve(&arguments, &config, &mut stores, &stop, starting)).await;
    stop.cancel();
    let stopped = stores.stop().await;
    served?;
    stopped?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(
    arguments: &Arguments,
    config: &Config,
    stores: &mut Stores,
    stop: &CancellationToken,
    starting: AbortOnDropHandle<()>,
) -> Result<()> {
    stores.migrate().await?;
    let db = stores.pool(config.database_pool_size)?;
    database::check(&db).await?;
    let created_users = create_first_users(arguments, config, &db).await?;
    let process = Process::start(config, db, &stores.redis).await?;
    let api = Api::bind(config, &process).await?;
    let worker_process = worker::worker_process(config, &process);
    let keys = api.keys_dependency();
    drop(starting);
    crate::print(&greeting(config, &api, &created_users));
    // API and workers stop together: when either ends, `stop` is cancelled, and the other shuts down gracefully.
    let served = async {
        let _other = stop.clone().drop_guard();
        api.serve(stop.clone()).await
    };
    let worked = async {
        let _other = stop.clone().drop_guard();
        Ok(worker_process.run(stop.clone()).await?)
    };
    let work = async {
        let (served, worked) = tokio::join!(served, worked);
        served.and(worked)
    };
    let work = Box::pin(process.run_with_health(stop.clone(), [keys], work));
    match &mut stores.services {
        None => work.await,
        Some(services) => tokio::select! {
            worked = work => worked,
            unexpected_end = services.unexpected_end() => bail!("{unexpected_end}"),
        },
    }
}

/// Logs at an interval that the process is still starting. On a slow disk, `initdb`, the migrations and the demo data
/// take so long that a start without log lines would look like a hang.
async fn log_starting() {
    let begun = Instant::now();
    loop {
        tokio::time::sleep(STARTING_INTERVAL).await;
        tracing::info!("still starting, after {} s", begun.elapsed().as_secs());
    }
}

/// Creates the first organization with its first user, or the demo organization. Returns the users that this call
/// created.
async fn create_first_users(
    arguments: &Arguments,
    config: &Config,
    db: &Db,
) -> Result<Vec<CreatedUser>> {
    let tx = db.auth(Origin::system()).await?;
    let default = match Organization::find_by_slug(&tx, DEFAULT_SLUG).await? {
        Some(organization) => organization,
        None => Organization::create(&tx, DEFAULT_SLUG, "Default", false, crate::now()).await?,
    };
    tx.commit().await?;
    if arguments.demo {
        return demo::load(db, config).await;
    }
    let tx = db.read(default.id).await?;
    let members = User::count(&tx).await?;
    tx.commit().await?;
    if members > 0 {
        return Ok(Vec::new());
    }
    let user =
        admin::add_user(db, config, &default, "admin@localhost", "Admin", "owner", None).await?;
    Ok(vec![user])
}

fn greeting(config: &Config, api: &Api, created_users: &[CreatedUser]) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    if !created_users.is_empty() {
        let _ = writeln!(text, "\nPasswords for the first sign-in, shown this once:\n");
        for CreatedUser { role, email, password } in created_users {
            let _ = writeln!(text, "  {role:<9} {email:<24} {password}");
        }
    }
    let _ = writeln!(text, "\nSentryOps is up on http://{}", api.address);
    if config.graphql.playground {
        let _ = writeln!(text, "  playground  http://{}/playground", api.address);
    }
    let _ = writeln!(text, "  health      http://{}/readyz\n", config.health);
    text
}
