//! Addresses of Postgres and Redis: either set in the environment, or those of private services in the data folder.
//!
//! A command that runs while `up` is running connects to the private Postgres of `up`, with the passwords in the data
//! folder. If no `up` is running on the data folder, the command starts a private Postgres and stops it at the end.

use anyhow::{Context, Result, bail};
use domain::Db;
use tokio_postgres::NoTls;

use crate::{
    config::Config,
    embedded::{self, DatabaseUrls, Requested, Services},
};

/// URLs of Postgres and Redis, with the private services that this process has started for URLs that are not set.
pub(crate) struct Stores {
    /// Postgres URL of the application's login.
    pub(crate) app: String,
    /// Postgres URL of the schema's owner, for migrations; `None` if it is neither set nor private.
    pub(crate) owner: Option<String>,
    /// Postgres URL of a superuser that can create roles; `None` unless Postgres is private.
    pub(crate) admin: Option<String>,
    /// Redis URL; empty for commands that need only Postgres.
    pub(crate) redis: String,
    /// Private services that this process has started, if any.
    pub(crate) services: Option<Services>,
}

impl Stores {
    /// Starts private services for the URLs that are not set, and returns all URLs.
    pub(crate) async fn start(config: &Config) -> Result<Self> {
        let requested = Requested {
            postgres: config.database_url.is_none(),
            redis: config.redis_url.is_none(),
        };
        let services = if requested.postgres || requested.redis {
            Some(Services::start(&config.data_dir, requested).await?)
        } else {
            None
        };
        let private = services.as_ref().and_then(|services| services.database.clone());
        let private_redis = services.as_ref().and_then(|services| services.redis_url.clone());
        Self::of(config, private, private_redis, services)
    }

    fn of(
        config: &Config,
        private: Option<DatabaseUrls>,
        private_redis: Option<String>,
        services: Option<Services>,
    ) -> Result<Self> {
        let exposed = |url: &Option<crate::config::DatabaseUrl>| {
            url.as_ref().map(|url| url.url.expose().clone())
        };
        let redis = config.redis_url.as_ref().map(|url| url.expose().to_string()).or(private_redis);
        Ok(Self {
            app: exposed(&config.database_url)
                .or_else(|| private.as_ref().map(|urls| urls.app.clone()))
                .context("no Postgres is available: set DATABASE_URL")?,
            owner: exposed(&config.database_owner_url)
                .or_else(|| private.as_ref().map(|urls| urls.owner.clone())),
            admin: private.map(|urls| urls.admin),
            redis: redis.unwrap_or_default(),
            services,
        })
    }

    /// Returns the Postgres URLs for a short command. They are those of `DATABASE_URL`, or those of a running `up` on
    /// the data folder, or those of a private Postgres that this call starts and [`Stores::stop`] stops.
    pub(crate) async fn for_command(config: &Config) -> Result<Self> {
        if config.database_url.is_some() {
            return Self::of(config, None, None, None);
        }
        if let Some(urls) = embedded::find_running(&config.data_dir).await? {
            return Self::of(config, Some(urls), None, None);
        }
        let services =
            Services::start(&config.data_dir, Requested { postgres: true, redis: false }).await?;
        let urls = services.database.clone();
        Self::of(config, urls, None, Some(services))
    }

    /// Opens a pool of at most `size` connections with the application's login.
    pub(crate) fn pool(&self, size: usize) -> Result<Db> {
        Db::new(&self.app, size, "sentryops").context("DATABASE_URL is invalid")
    }

    /// Creates the roles if Postgres is private. Applies pending migrations if the URL of the owner is available.
    pub(crate) async fn migrate(&self) -> Result<()> {
        if let Some(admin) = &self.admin {
            let (mut client, _connection) = connect(admin).await?;
            migrations::roles(&mut client, &login_of(&self.app)?)
                .await
                .context("the database roles could not be created")?;
        }
        let Some(owner) = &self.owner else { return Ok(()) };
        let (mut client, _connection) = connect(owner).await?;
        migrations::up(&mut client).await.context("the database could not be migrated")?;
        Ok(())
    }

    /// Stops the private services that this process has started.
    pub(crate) async fn stop(self) -> Result<()> {
        match self.services {
            Some(services) => services.stop().await,
            None => Ok(()),
        }
    }
}

/// Returns the user name in a Postgres URL.
pub(crate) fn login_of(url: &str) -> Result<String> {
    let config: tokio_postgres::Config = url.parse().context("DATABASE_URL is invalid")?;
    config.get_user().map(ToOwned::to_owned).context("DATABASE_URL contains no user name")
}

/// Task that drives a Postgres connection. Dropping the task closes the connection.
pub(crate) struct Connection(tokio::task::JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Opens a single connection without a pool. TLS follows the `sslmode` of the URL; Unix sockets use no TLS.
pub(crate) async fn connect(url: &str) -> Result<(tokio_postgres::Client, Connection)> {
    let config: tokio_postgres::Config = url.parse().context("the Postgres URL is invalid")?;
    let unavailable = "cannot connect to Postgres";
    if matches!(config.get_ssl_mode(), tokio_postgres::config::SslMode::Disable)
        || is_local(&config)
    {
        let (client, connection) = config.connect(NoTls).await.context(unavailable)?;
        return Ok((client, Connection(tokio::spawn(async move { drop(connection.await) }))));
    }
    let (client, connection) =
        config.connect(domain::base::db::tls()).await.context(unavailable)?;
    Ok((client, Connection(tokio::spawn(async move { drop(connection.await) }))))
}

fn is_local(config: &tokio_postgres::Config) -> bool {
    config.get_hosts().iter().all(|host| matches!(host, tokio_postgres::config::Host::Unix(_)))
}

/// Checks that row security restricts the login, and that the schema is not older than this program.
pub(crate) async fn check(db: &Db) -> Result<()> {
    db.check_login().await?;
    let (version, latest) = (db.schema_version().await?, migrations::latest());
    if version < latest {
        bail!(
            "the database schema is at version {version}, but this program needs {latest}: run `sentryops migrate up`"
        );
    }
    Ok(())
}
