//! Base of every serving process: the database, Redis, and the health listener with health and metrics.
//!
//! Redis also carries hints, i.e. notifications without content that rows may have changed.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use api::{Dependency, Health, Probe};
use domain::Db;
use jobs::{
    Redis,
    event::{Listener, Publisher},
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

use crate::{config::Config, database};

/// A serving process: `api`, `worker` or `up`.
pub(crate) struct Process {
    /// Connection pool of Postgres. Events of committed transactions are published to Redis as hints.
    pub(crate) db: Db,
    /// Redis client, for rate limits and hints.
    pub(crate) redis: Redis,
    /// Receiver of the hints that all processes publish.
    pub(crate) hints: Listener,
    health: TcpListener,
    metrics: PrometheusHandle,
}

impl Process {
    /// Connects to the services and binds the health listener. Does not wait for Postgres or Redis, which may be down.
    pub(crate) async fn start(config: &Config, db: Db, redis_url: &str) -> Result<Self> {
        let metrics = PrometheusBuilder::new()
            .install_recorder()
            .context("a metrics recorder has already been installed")?;
        let redis = Redis::open(redis_url).context("REDIS_URL cannot be used")?;
        let (publisher, publisher_task) = Publisher::new(redis.clone());
        tokio::spawn(publisher_task);
        let db = jobs::compliance::posture::with_reevaluation(db)
            .publishing(move |events| publisher.publish(events));
        let (hints, listener_task) =
            Listener::new(redis_url, redis.clone()).context("REDIS_URL cannot be used")?;
        tokio::spawn(listener_task);
        let health = bind(config.health, "HEALTH_ADDR").await?;
        Ok(Self { db, redis, hints, health, metrics })
    }

    /// Returns the address of the health listener, with the actual port.
    pub(crate) fn health_address(&self) -> Result<SocketAddr> {
        Ok(self.health.local_addr()?)
    }

    /// Runs `work`, and serves health and metrics until `work` has ended, so that the whole shutdown can be monitored.
    /// `dependencies` are those of `work`, in addition to those of every process.
    pub(crate) async fn run_with_health(
        self,
        stop: CancellationToken,
        dependencies: impl IntoIterator<Item = Dependency>,
        work: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        let work_ended = CancellationToken::new();
        let mut all = self::dependencies(self.db, self.redis);
        all.extend(dependencies);
        let health = Health::new(all, self.metrics.clone(), stop);
        let health = tokio::spawn({
            let (listener, work_ended) = (self.health, work_ended.clone());
            async move { health.run(listener, &api::Limits::default(), work_ended).await }
        });
        let metrics_upkeep = tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_secs(5));
            loop {
                tick.tick().await;
                self.metrics.run_upkeep();
            }
        });
        let result = work.await;
        work_ended.cancel();
        metrics_upkeep.abort();
        health.await.context("the health server stopped unexpectedly")??;
        result
    }
}

/// Checks before the first request that row security restricts the database login. If Postgres is unavailable, only
/// logs a warning, because Postgres may become available later.
pub(crate) async fn check_login(db: &Db) -> Result<()> {
    match db.check_login().await {
        Ok(()) => Ok(()),
        Err(domain::base::db::LoginRefusal::Unavailable(_)) => {
            tracing::warn!(
                "Postgres is unavailable: the privileges of the login are not checked at this start"
            );
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Cancels `stop` on SIGTERM or SIGINT.
pub(crate) async fn stop_on_signal(stop: CancellationToken) {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("no signal handler could be installed: end this process with SIGKILL");
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("shutting down after a signal");
    stop.cancel();
}

/// Binds a TCP listener. An error names `variable`, the setting with the address.
pub(crate) async fn bind(address: SocketAddr, variable: &str) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("{variable}: cannot listen on {address}"))
}

/// Returns the dependencies of every process, by the names that `/readyz` shows. Without Redis, a process goes on: rate
/// limits are enforced locally, and queues and subscriptions poll.
fn dependencies(db: Db, redis: Redis) -> Vec<Dependency> {
    let migrations_db = db.clone();
    let postgres: Probe = Arc::new(move || {
        let db = db.clone();
        Box::pin(async move { db.ping().await.map_err(|error| format!("{error:?}")) })
    });
    let migrations: Probe = Arc::new(move || {
        let db = migrations_db.clone();
        Box::pin(async move { database::check(&db).await.map_err(|error| format!("{error:#}")) })
    });
    let redis: Probe = Arc::new(move || {
        let redis = redis.clone();
        Box::pin(async move { redis.ping().await.map_err(|error| error.to_string()) })
    });
    vec![
        Dependency::required("postgres", postgres),
        Dependency::required("migrations", migrations),
        Dependency::optional("redis", redis),
    ]
}
