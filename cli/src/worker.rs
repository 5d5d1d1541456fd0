//! The fleet of one process: what `sentryops worker` is, and a part of `sentryops up`.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Result, bail};
use clap::Args;
use domain::fleet::job::Queue;
use jobs::queue::renewal::LeaseConfig;
use tokio_util::sync::CancellationToken;
use workers::{Fleet, Settings};

use crate::{
    config::Config,
    database::Stores,
    process::{self, Process},
};

/// How long running jobs may go on after a stop.
const DRAIN: Duration = Duration::from_secs(30);
/// How often it is looked for lost leases and due schedules.
const TEND: Duration = Duration::from_secs(1);

/// What `worker` is told.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Take from these queues only, e.g. scan; all of `WORKER_QUEUES` without it.
    #[arg(long = "queue", value_name = "NAME")]
    queues: Vec<String>,
}

/// `sentryops worker`.
pub(crate) async fn run(arguments: Arguments, mut config: Config) -> Result<ExitCode> {
    if !arguments.queues.is_empty() {
        let chosen = arguments.queues.iter().map(|name| queue(name)).collect::<Result<Vec<_>>>()?;
        config.workers.queues.retain(|(queue, _)| chosen.contains(queue));
        if config.workers.queues.is_empty() {
            bail!("--queue: none of them is among WORKER_QUEUES");
        }
    }
    let stores = Stores::start(&config).await?;
    let db = stores.pool(config.database_pool_size)?;
    process::check_login(&db).await?;
    let process = Process::start(&config, db, &stores.redis).await?;
    let fleet = fleet(&config, &process);
    let health = process.health_address()?;
    tracing::info!(health.address = %health, "this worker's health is on http://{health}/readyz");
    let stop = CancellationToken::new();
    tokio::spawn(process::stop_on_signal(stop.clone()));
    let work = async { Ok(fleet.run(stop.clone()).await?) };
    process.watch(stop.clone(), work).await?;
    Ok(ExitCode::SUCCESS)
}

fn queue(name: &str) -> Result<Queue> {
    let known = Queue::ALL.iter().find(|queue| queue.as_str().eq_ignore_ascii_case(name));
    let Some(queue) = known else {
        let names: Vec<_> = Queue::ALL.iter().map(|queue| queue.as_str().to_lowercase()).collect();
        bail!("--queue {name}: there is no such queue; there are {}", names.join(", "))
    };
    Ok(*queue)
}

/// The fleet of this process.
pub(crate) fn fleet(config: &Config, process: &Process) -> Fleet {
    let settings = Settings {
        queues: config.workers.queues.clone(),
        leases: LeaseConfig::default(),
        drain: DRAIN,
        tend_every: TEND,
        history_days: config.workers.history_days,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    let (db, hints) = (process.db.clone(), process.hints.clone());
    Fleet::new(db, hints, workers::handlers(), workers::duties(), Arc::new(crate::now), settings)
}
