//! The API of one process: what `sentryops api` is, and the larger part of `sentryops up`.

use std::{net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow};
use api::{Health, Probe, Server};
use chrono::TimeDelta;
use domain::{
    Db, identity::Identity, page::CursorKeys, password, session::SessionPolicy, token::TokenKeys,
};
use graphql::{Allowlist, Engine, Services, Settings, Watching};
use jobs::{
    Limiter, Quota, Redis,
    event::{Listener, Publisher},
};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{self, Config, KeyRing},
    database::{self, Stores},
};

/// `sentryops api`.
pub(crate) async fn run(config: Config) -> Result<ExitCode> {
    let stores = Stores::start(&config).await?;
    let db = stores.pool(config.database_pool_size)?;
    // A login that row security would not hold must not serve for one request; an absent database may come back.
    match db.check_login().await {
        Ok(()) => {}
        Err(domain::db::LoginRefusal::Unavailable(_)) => {
            tracing::warn!("Postgres does not answer yet");
        }
        Err(refusal) => return Err(refusal.into()),
    }
    let api = Api::bind(&config, db, &stores.redis).await?;
    let stop = CancellationToken::new();
    tokio::spawn(stop_on_signal(stop.clone()));
    api.serve(stop).await?;
    Ok(ExitCode::SUCCESS)
}

/// Cancels on SIGTERM or SIGINT.
pub(crate) async fn stop_on_signal(stop: CancellationToken) {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals cannot be heard: end this process with SIGKILL");
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    stop.cancel();
}

/// An API that is bound and ready to serve.
pub(crate) struct Api {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    server: Server,
    listener: TcpListener,
    health: TcpListener,
    limits: api::Limits,
    probes: Vec<(&'static str, Probe)>,
    metrics: metrics_exporter_prometheus::PrometheusHandle,
}

impl Api {
    /// Builds the schema, binds both ports.
    pub(crate) async fn bind(config: &Config, db: Db, redis_url: &str) -> Result<Self> {
        let metrics =
            PrometheusBuilder::new().install_recorder().context("metrics were started twice")?;
        let redis = Redis::open(redis_url).context("REDIS_URL cannot be used")?;
        let (publisher, publishing) = Publisher::new(redis.clone());
        tokio::spawn(publishing);
        let db = db.publishing(move |events| publisher.publish(events));
        let (listener, listening) =
            Listener::new(redis_url, redis.clone()).context("REDIS_URL cannot be used")?;
        tokio::spawn(listening);
        let engine = engine(config, db.clone(), redis.clone(), listener)?;
        let listener = bind(config.listen, "LISTEN_ADDR").await?;
        let health = bind(config.health, "HEALTH_ADDR").await?;
        let address = listener.local_addr()?;
        let edge = edge(config)?;
        let limits = edge.limits.clone();
        Ok(Self {
            address,
            server: Server::new(edge, engine),
            listener,
            health,
            limits,
            probes: probes(db, redis),
            metrics,
        })
    }

    /// Serves until it is told to stop; health goes last, so that the stopping can be watched.
    pub(crate) async fn serve(self, stop: CancellationToken) -> Result<()> {
        let (address, health) = (self.address, self.health.local_addr()?);
        tracing::info!(
            api.address = %address,
            health.address = %health,
            "GraphQL is served on http://{address}/graphql"
        );
        let stopped = CancellationToken::new();
        let health = Health::new(self.probes, self.metrics.clone(), stop.clone());
        let health = tokio::spawn({
            let (limits, stopped, listener) = (self.limits, stopped.clone(), self.health);
            async move { health.run(listener, &limits, stopped).await }
        });
        let upkeep = tokio::spawn(async move {
            let mut minute = tokio::time::interval(Duration::from_secs(5));
            loop {
                minute.tick().await;
                self.metrics.run_upkeep();
            }
        });
        let served = self.server.run(self.listener, stop).await;
        stopped.cancel();
        upkeep.abort();
        health.await.context("the health port ended early")??;
        served.context("the API port ended early")
    }
}

async fn bind(address: SocketAddr, variable: &str) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("{variable}: nothing can listen on {address}"))
}

/// The GraphQL engine as the configuration wants it.
pub(crate) fn engine(config: &Config, db: Db, redis: Redis, listener: Listener) -> Result<Engine> {
    let sessions = &config.sessions;
    let time = |life: Duration| TimeDelta::from_std(life).context("a configured time is too long");
    let policy = SessionPolicy {
        access_life: time(sessions.access_token_life)?,
        session_life: time(sessions.refresh_token_life)?,
        idle: sessions.idle.map(time).transpose()?,
        max_per_user: i64::from(sessions.max_per_user.get()),
        max_per_admin: i64::from(sessions.max_per_admin.get()),
    };
    let cost = password::Cost {
        memory_kib: config.argon2.memory_kib,
        passes: config.argon2.passes,
        lanes: config.argon2.lanes,
    };
    let hasher = password::Hasher::new(cost, config.argon2.max_parallel.get())?;
    let keys = TokenKeys::new(pairs(config.jwt_keys.as_ref().context("JWT_KEYS is not set")?));
    let ring = config.encryption_keys.as_ref().context("ENCRYPTION_KEYS is not set")?;
    let services = Services {
        identity: Identity::new(
            db.clone(),
            hasher,
            keys,
            policy,
            time(config.limits.login_ip_block)?,
        ),
        db,
        limiter: Limiter::new(redis),
        listener,
        auth_quota: Quota {
            name: "auth",
            count: config.limits.auth.count,
            per: config.limits.auth.per,
        },
        scan_quota: Quota {
            name: "scan",
            count: config.limits.scan.count,
            per: config.limits.scan.per,
        },
        cursors: CursorKeys::derive(ring.keys().iter().map(|key| key.secret.expose().as_slice())),
    };
    let digests = |documents: &config::Documents| documents.keys().cloned().collect();
    let settings = Settings {
        introspection: config.graphql.introspection,
        allowlist: match &config.graphql.allowlist {
            config::Allowlist::Off => Allowlist::Off,
            config::Allowlist::Log(documents) => Allowlist::Log(digests(documents)),
            config::Allowlist::Enforce(documents) => Allowlist::Enforce(digests(documents)),
        },
        watching: Watching::default(),
    };
    Engine::build(services, settings)
        .map_err(|unstated| anyhow!("the schema states no permission for: {}", unstated.join(", ")))
}

fn pairs(ring: &KeyRing) -> impl Iterator<Item = (&str, &[u8])> {
    ring.keys().iter().map(|key| (key.kid.as_str(), key.secret.expose().as_slice()))
}

fn edge(config: &Config) -> Result<api::Config> {
    let origins = config.http.cors_origins.iter().map(|origin| origin.as_str().parse());
    let defaults = api::Config::default();
    Ok(api::Config {
        listen: config.listen,
        health_listen: config.health,
        cors_origins: origins.collect::<Result<_, _>>().context("CORS_ORIGINS cannot be used")?,
        trusted_proxies: config.http.trusted_proxies.clone(),
        hsts: config
            .http
            .hsts
            .map(|hsts| api::Hsts { max_age: hsts.max_age, preload: hsts.preload }),
        playground: config.graphql.playground,
        limits: api::Limits {
            connections_per_address: config.http.connections_per_address.get() as usize,
            ..defaults.limits
        },
    })
}

/// What this process needs, asked by `/readyz`.
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
