//! Where Postgres and Redis are: as given by the environment, or private to the data folder.
//!
//! Commands that run beside `up` reach its private services through the data folder's own secrets; where nothing runs
//! there, they start the services for as long as they need them.

use anyhow::{Context, Result, bail};
use domain::Db;
use tokio_postgres::NoTls;

use crate::{
    config::Config,
    embedded::{self, DatabaseUrls, Services, Want},
};

/// The addresses to use, and the private services behind those that were not given.
pub(crate) struct Stores {
    /// Postgres as the login that serves.
    pub(crate) app: String,
    /// Postgres as the owner that migrates, if known.
    pub(crate) owner: Option<String>,
    /// Postgres as somebody who may make roles: of private services only.
    pub(crate) admin: Option<String>,
    /// Redis.
    pub(crate) redis: String,
    /// What we started ourselves.
    pub(crate) services: Option<Services>,
}

impl Stores {
    /// Starts what is not given and says where everything is.
    pub(crate) async fn start(config: &Config) -> Result<Self> {
        let want =
            Want { postgres: config.database_url.is_none(), redis: config.redis_url.is_none() };
        let services = if want.postgres || want.redis {
            Some(Services::start(&config.data_dir, want).await?)
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
        let given = |url: &Option<crate::config::DatabaseUrl>| {
            url.as_ref().map(|url| url.url.expose().clone())
        };
        let redis = config.redis_url.as_ref().map(|url| url.expose().to_string()).or(private_redis);
        Ok(Self {
            app: given(&config.database_url)
                .or_else(|| private.as_ref().map(|urls| urls.app.clone()))
                .context("there is no Postgres: set DATABASE_URL")?,
            owner: given(&config.database_owner_url)
                .or_else(|| private.as_ref().map(|urls| urls.owner.clone())),
            admin: private.map(|urls| urls.admin),
            redis: redis.unwrap_or_default(),
            services,
        })
    }

    /// For a command that needs the database for a moment: the given one, the one of an `up` that is running on the
    /// data folder, or a private one for as long as the command runs.
    pub(crate) async fn visit(config: &Config) -> Result<Self> {
        if config.database_url.is_some() {
            return Self::of(config, None, None, None);
        }
        if let Some(urls) = embedded::running(&config.data_dir).await? {
            return Self::of(config, Some(urls), None, None);
        }
        let services =
            Services::start(&config.data_dir, Want { postgres: true, redis: false }).await?;
        let urls = services.database.clone();
        Self::of(config, urls, None, Some(services))
    }

    /// The application's pool.
    pub(crate) fn pool(&self, size: usize) -> Result<Db> {
        Db::new(&self.app, size, "sentryops").context("DATABASE_URL cannot be used")
    }

    /// Makes the roles where we may (private services), and applies what is pending where the owner is known.
    pub(crate) async fn migrate(&self) -> Result<()> {
        if let Some(admin) = &self.admin {
            let (mut client, _connection) = connect(admin).await?;
            migrations::roles(&mut client, &login_of(&self.app)?)
                .await
                .context("the database roles could not be made")?;
        }
        let Some(owner) = &self.owner else { return Ok(()) };
        let (mut client, _connection) = connect(owner).await?;
        migrations::up(&mut client).await.context("the database could not be migrated")?;
        Ok(())
    }

    /// Ends what we started.
    pub(crate) async fn stop(self) -> Result<()> {
        match self.services {
            Some(services) => services.stop().await,
            None => Ok(()),
        }
    }
}

/// The name in a Postgres URL.
pub(crate) fn login_of(url: &str) -> Result<String> {
    let config: tokio_postgres::Config = url.parse().context("DATABASE_URL cannot be used")?;
    config.get_user().map(ToOwned::to_owned).context("DATABASE_URL names no user")
}

/// Ends the connection when it is no longer needed.
pub(crate) struct Connection(tokio::task::JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connection of its own, with TLS where the URL asks for it.
pub(crate) async fn connect(url: &str) -> Result<(tokio_postgres::Client, Connection)> {
    let config: tokio_postgres::Config = url.parse().context("the Postgres URL cannot be used")?;
    let unavailable = "Postgres does not answer";
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

/// Refuses to serve from a database that would not keep organizations apart, or whose schema is behind.
pub(crate) async fn check(db: &Db) -> Result<()> {
    db.check_login().await?;
    let (version, latest) = (db.schema_version().await?, migrations::latest());
    if version < latest {
        bail!(
            "the database's schema is at {version}, this version needs {latest}: run `sentryops migrate up`"
        );
    }
    Ok(())
}
