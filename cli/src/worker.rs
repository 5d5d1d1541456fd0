//! The fleet of one process: all of `sentryops worker` and a part of `sentryops up`.

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

/// Time that running jobs have to finish during a shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Interval of the checks for lost leases and due schedules.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);

/// Arguments of `worker`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Claim jobs from this queue only, e.g. scan; may be repeated. Default: all of `WORKER_QUEUES`.
    #[arg(long = "queue", value_name = "NAME")]
    queues: Vec<String>,
}

/// Runs `sentryops worker` until a signal stops it.
pub(crate) async fn run(arguments: Arguments, mut config: Config) -> Result<ExitCode> {
    if !arguments.queues.is_empty() {
        let chosen = arguments.queues.iter().map(|name| queue(name)).collect::<Result<Vec<_>>>()?;
        config.workers.queues.retain(|(queue, _)| chosen.contains(queue));
        if config.workers.queues.is_empty() {
            bail!("--queue: none of these queues is in WORKER_QUEUES, so there is nothing to do");
        }
    }
    let stores = Stores::start(&config).await?;
    let db = stores.pool(config.database_pool_size)?;
    process::check_login(&db).await?;
    let process = Process::start(&config, db, &stores.redis).await?;
    let fleet = fleet(&config, &process);
    let health = process.health_address()?;
    tracing::info!(health.address = %health, "worker started; its health is on http://{health}/readyz");
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
        bail!("--queue {name}: no such queue; the queues are {}", names.join(", "))
    };
    Ok(*queue)
}

/// Builds the fleet of this process from the configuration.
pub(crate) fn fleet(config: &Config, process: &Process) -> Fleet {
    let settings = Settings {
        queues: config.workers.queues.clone(),
        leases: LeaseConfig::default(),
        drain: DRAIN_TIMEOUT,
        maintenance_interval: MAINTENANCE_INTERVAL,
        history_days: config.workers.history_days,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    let (db, hints) = (process.db.clone(), process.hints.clone());
    Fleet::new(db, hints, workers::handlers(), workers::duties(), Arc::new(crate::now), settings)
}
