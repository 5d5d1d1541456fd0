//! The workers of one process, for `sentryops worker` and `sentryops up`.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Result, bail};
use clap::Args;
use domain::fleet::job::Queue;
use jobs::queue::renewal::LeaseConfig;
use tokio_util::sync::CancellationToken;
use workers::{Settings, WorkerProcess};

use crate::{
    config::Config,
    database::Stores,
    process::{self, Process},
};

/// Drain timeout: maximum time that a shutdown waits for running jobs.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Interval of the maintenance, which checks for lost leases and due schedules.
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
    let worker_process = worker_process(&config, &process);
    let health = process.health_address()?;
    tracing::info!(health.address = %health, "worker started; readiness is served on http://{health}/readyz");
    let stop = CancellationToken::new();
    tokio::spawn(process::stop_on_signal(stop.clone()));
    let work = async { Ok(worker_process.run(stop.clone()).await?) };
    process.run_with_health(stop.clone(), None, work).await?;
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

/// Builds the workers of this process from the configuration.
pub(crate) fn worker_process(config: &Config, process: &Process) -> WorkerProcess {
    let settings = Settings {
        queues: config.workers.queues.clone(),
        leases: LeaseConfig::default(),
        drain_timeout: DRAIN_TIMEOUT,
        maintenance_interval: MAINTENANCE_INTERVAL,
        retention: config.workers.retention,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    let (db, hints) = (process.db.clone(), process.hints.clone());
    WorkerProcess::new(
        db,
        hints,
        workers::handlers(),
        workers::periodic_tasks(),
        Arc::new(crate::now),
        settings,
    )
}
