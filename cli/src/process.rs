//! Parts of every serving process: its database, hints from Redis, health and metrics on a separate port.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use api::{Health, Probe};
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

/// A serving process: API, worker or both.
pub(crate) struct Process {
    /// Database; its committed events are published to Redis.
    pub(crate) db: Db,
    /// Redis client, for limits and hints.
    pub(crate) redis: Redis,
    /// Listener for the events that other processes publish.
    pub(crate) hints: Listener,
    health: TcpListener,
    metrics: PrometheusHandle,
}

impl Process {
    /// Binds the health port. Does not wait for Postgres or Redis, which may be down.
    pub(crate) async fn start(config: &Config, db: Db, redis_url: &str) -> Result<Self> {
        let metrics = PrometheusBuilder::new()
            .install_recorder()
            .context("the metrics recorder is installed already")?;
        let redis = Redis::open(redis_url).context("REDIS_URL cannot be used")?;
        let (publisher, publishing) = Publisher::new(redis.clone());
        tokio::spawn(publishing);
        let db = jobs::compliance::posture::reevaluating(db)
            .publishing(move |events| publisher.publish(events));
        let (hints, listening) =
            Listener::new(redis_url, redis.clone()).context("REDIS_URL cannot be used")?;
        tokio::spawn(listening);
        let health = bind(config.health, "HEALTH_ADDR").await?;
        Ok(Self { db, redis, hints, health, metrics })
    }

    /// Returns the address that serves health and metrics.
    pub(crate) fn health_address(&self) -> Result<SocketAddr> {
        Ok(self.health.local_addr()?)
    }

    /// Serves health and metrics until `work` has ended, so that a shutdown can be observed.
    pub(crate) async fn watch(
        self,
        stop: CancellationToken,
        work: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        let stopped = CancellationToken::new();
        let health = Health::new(probes(self.db, self.redis), self.metrics.clone(), stop);
        let health = tokio::spawn({
            let (listener, stopped) = (self.health, stopped.clone());
            async move { health.run(listener, &api::Limits::default(), stopped).await }
        });
        let upkeep = tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_secs(5));
            loop {
                tick.tick().await;
                self.metrics.run_upkeep();
            }
        });
        let worked = work.await;
        stopped.cancel();
        upkeep.abort();
        health.await.context("the health server stopped unexpectedly")??;
        worked
    }
}

/// Refuses a database login that row security would not restrict, before the first request. An unavailable database is
/// only logged, because it may come back.
pub(crate) async fn check_login(db: &Db) -> Result<()> {
    match db.check_login().await {
        Ok(()) => Ok(()),
        Err(domain::base::db::LoginRefusal::Unavailable(_)) => {
            tracing::warn!("Postgres is not available yet; the login is not checked");
            Ok(())
        }
        Err(refusal) => Err(refusal.into()),
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

/// Binds a TCP listener. The error names `variable`, the setting of the address.
pub(crate) async fn bind(address: SocketAddr, variable: &str) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("{variable}: cannot listen on {address}"))
}

/// Returns the dependencies of this process, which `/readyz` checks.
fn probes(db: Db, redis: Redis) -> Vec<(&'static str, Probe)> {
    let behind = db.clone();
    vec![
        (
            "postgres",
            Arc::new(move || {
                let db = db.clone();
                Box::pin(async move { db.ping().await.map_err(|error| format!("{error:?}")) })
            }),
        ),
        (
            "migrations",
            Arc::new(move || {
                let db = behind.clone();
                Box::pin(
                    async move { database::check(&db).await.map_err(|error| format!("{error:#}")) },
                )
            }),
        ),
        (
            "redis",
            Arc::new(move || {
                let redis = redis.clone();
                Box::pin(async move { redis.ping().await.map_err(|error| error.to_string()) })
            }),
        ),
    ]
}
