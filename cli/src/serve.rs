//! The API server of one process, for `sentryops api` and `sentryops up`.

use std::{net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow};
use api::{Dependency, Probe, Server};
use chrono::TimeDelta;
use domain::{
    Db,
    access::{
        identity::Identity, password, refusal::Refusals, session::SessionPolicy, token::TokenKeys,
    },
    base::page::CursorKeys,
};
use graphql::{Allowlist, CheckIntervals, Engine, Services, Settings};
use jobs::{Limiter, Quota, queue::depth::QueueDepth};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{self, Config, KeyRing, Rate},
    database::Stores,
    process::{self, Process},
};

/// Runs `sentryops api` until a signal stops it.
pub(crate) async fn run(config: Config) -> Result<ExitCode> {
    let stores = Stores::start(&config).await?;
    let db = stores.pool(config.database_pool_size)?;
    process::check_login(&db).await?;
    let process = Process::start(&config, db, &stores.redis).await?;
    let api = Api::bind(&config, &process).await?;
    let stop = CancellationToken::new();
    tokio::spawn(process::stop_on_signal(stop.clone()));
    let keys = api.keys_dependency();
    process.run_with_health(stop.clone(), [keys], api.serve(stop)).await?;
    Ok(ExitCode::SUCCESS)
}

/// API server with a bound listener.
pub(crate) struct Api {
    /// Address on which the API listens, with the actual port.
    pub(crate) address: SocketAddr,
    health: SocketAddr,
    server: Server,
    listener: TcpListener,
    keys: TokenKeys,
    db: Db,
    queue_depth: QueueDepth,
    refusals: Refusals,
}

impl Api {
    /// Builds the GraphQL schema, and binds the public listener.
    pub(crate) async fn bind(config: &Config, process: &Process) -> Result<Self> {
        let jwt_keys = config.jwt_keys.as_ref().context("JWT_KEYS is not set")?;
        let keys = TokenKeys::new(pairs(jwt_keys));
        let queue_depth = QueueDepth::new(config.limits.shed_queue_depth);
        let identity = identity(config, process, keys.clone())?;
        let refusals = identity.refusals().clone();
        let engine = engine(config, process, identity, queue_depth.clone())?;
        let listener = process::bind(config.listen, "LISTEN_ADDR").await?;
        let address = listener.local_addr()?;
        let (health, server) =
            (process.health_address()?, Server::new(api_config(config)?, engine));
        let db = process.db.clone();
        Ok(Self { address, health, server, listener, keys, db, queue_depth, refusals })
    }

    /// Returns the readiness probe of the keys that sign access tokens.
    pub(crate) fn keys_dependency(&self) -> Dependency {
        let keys = self.keys.clone();
        let probe: Probe = Arc::new(move || {
            let checked = keys.check(crate::now()).map_err(|error| error.to_string());
            Box::pin(std::future::ready(checked))
        });
        Dependency::required("keys", probe)
    }

    /// Serves until `stop` is cancelled.
    pub(crate) async fn serve(self, stop: CancellationToken) -> Result<()> {
        let address = self.address;
        tracing::info!(
            api.address = %address,
            health.address = %self.health,
            "serving GraphQL on http://{address}/graphql"
        );
        // Ends after the last request, so that its refusals are written too.
        let ended = CancellationToken::new();
        let refusals = self.refusals.run(self.db.clone(), ended.clone().cancelled_owned());
        let refusals = tokio::spawn(refusals);
        let served = tokio::select! {
            served = self.server.run(self.listener, stop) => served,
            () = self.queue_depth.watch(&self.db) => return Ok(()), // never ends
        };
        ended.cancel();
        refusals.await.context("the writer of refusals stopped unexpectedly")?;
        served.context("the API server stopped unexpectedly")
    }
}

/// Builds the authentication service from the configuration.
fn identity(config: &Config, process: &Process, keys: TokenKeys) -> Result<Identity> {
    let sessions = &config.sessions;
    let time_delta = |lifetime: Duration| {
        TimeDelta::from_std(lifetime).context("a configured duration is too long")
    };
    let policy = SessionPolicy {
        access_lifetime: time_delta(sessions.access_token_lifetime)?,
        session_lifetime: time_delta(sessions.refresh_token_lifetime)?,
        idle: sessions.idle.map(time_delta).transpose()?,
        max_per_user: i64::from(sessions.max_per_user.get()),
        max_per_admin: i64::from(sessions.max_per_admin.get()),
    };
    let cost = password::Cost {
        memory_kib: config.argon2.memory_kib,
        passes: config.argon2.passes,
        lanes: config.argon2.lanes,
    };
    let hasher = password::Hasher::new(cost, config.argon2.max_parallel.get())?;
    // Sign-in and authentication have connections of their own, which no query can exhaust.
    let own_pool = process.db.with_own_pool(config.database_pool_size.div_ceil(2))?;
    let address_block = time_delta(config.limits.login_ip_block)?;
    Ok(Identity::new(own_pool, hasher, keys, policy, address_block))
}

/// Builds the GraphQL engine from the configuration.
fn engine(
    config: &Config,
    process: &Process,
    identity: Identity,
    queue_depth: QueueDepth,
) -> Result<Engine> {
    let (db, redis, listener) = (process.db.clone(), process.redis.clone(), process.hints.clone());
    let ring = config.encryption_keys.as_ref().context("ENCRYPTION_KEYS is not set")?;
    let services = Services {
        identity,
        db,
        limiter: Limiter::new(redis),
        listener,
        auth_quota: quota("auth", config.limits.auth),
        run_quota: quota("scan", config.limits.compliance_runs),
        request_quota: quota("request", config.limits.requests),
        address_quota: quota("address", config.limits.addresses),
        queue_depth,
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
        intervals: CheckIntervals::default(),
    };
    Engine::build(services, settings).map_err(|undeclared_fields| {
        anyhow!(
            "the schema declares no permission for these fields: {}",
            undeclared_fields.join(", ")
        )
    })
}

const fn quota(name: &'static str, Rate { count, per }: Rate) -> Quota {
    Quota { name, count, per }
}

fn pairs(ring: &KeyRing) -> impl Iterator<Item = (&str, &[u8])> {
    ring.keys().iter().map(|key| (key.kid.as_str(), key.secret.expose().as_slice()))
}

fn api_config(config: &Config) -> Result<api::Config> {
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
