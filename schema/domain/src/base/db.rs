//! Access to Postgres: a connection pool, and transactions that carry their organization.
//!
//! Every statement runs in a transaction, and every transaction first switches to a database role. The login has no
//! privileges of its own (NOINHERIT), so Postgres rejects a statement that runs outside a transaction. A connection
//! returns to the pool only after its transaction has ended cleanly. Otherwise the next user of the connection could
//! inherit the open transaction, and the organization, of a cancelled request. Dropping an open transaction closes the
//! connection and cancels a statement that is still running.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use tokio_postgres::Row;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::base::{
    actor::Origin,
    entity::OrganizationId,
    error::{Error, Result},
    event::Event,
};

mod kind;
mod login;
mod tx;

pub use kind::{Auth, Fleet, Kind, Org};
pub use login::LoginRefusal;
pub(crate) use tx::column;
pub use tx::{FromRow, Param, Tx};

/// Maximum time to wait for a connection from the pool, and to establish one.
const POOL_WAIT: Duration = Duration::from_secs(5);
/// Maximum run time of one statement.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Future returned by a `before_commit` hook. Runs in the transaction that is about to commit.
pub type HookFuture<'a> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

/// A function that runs in an organization's transaction immediately before the commit.
type Hook = Arc<dyn for<'a> Fn(&'a Tx) -> HookFuture<'a> + Send + Sync>;

/// The database: a connection pool and its settings. Cheap to clone.
#[derive(Clone)]
pub struct Db {
    pool: Pool,
    config: Arc<tokio_postgres::Config>,
    tls: MakeRustlsConnect,
    publish: Arc<dyn Fn(Vec<Event>) + Send + Sync>,
    before_commit: Option<Hook>,
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db").field("pool", &self.pool.status()).finish_non_exhaustive()
    }
}

impl Db {
    /// Creates a pool for the URL. The pool connects on first use, so the process can start while the database is down.
    ///
    /// # Errors
    /// Fails if the URL is not a Postgres URL.
    pub fn new(url: &str, pool_size: usize, application_name: &str) -> Result<Self> {
        let mut config: tokio_postgres::Config = url.parse()?;
        // The statements are short: JIT compilation would take longer than running them.
        let options = format!(
            "-c jit=off -c statement_timeout={} -c idle_in_transaction_session_timeout=60000 -c lock_timeout=5000",
            STATEMENT_TIMEOUT.as_millis()
        );
        let combined_options = config.get_options().map(|own| format!("{options} {own}"));
        config
            .options(combined_options.unwrap_or(options))
            .application_name(application_name)
            .connect_timeout(POOL_WAIT)
            .keepalives_idle(Duration::from_secs(10))
            .tcp_user_timeout(Duration::from_secs(10));
        let tls = tls();
        let config = Arc::new(config);
        let pool = pool(&config, &tls, pool_size)?;
        Ok(Self { pool, config, tls, publish: Arc::new(|_| ()), before_commit: None })
    }

    /// Returns the maximum number of connections in the pool.
    pub fn pool_size(&self) -> usize {
        self.pool.status().max_size
    }

    /// Returns the same database with a separate connection pool, which other components of the process cannot exhaust.
    pub fn with_own_pool(&self, pool_size: usize) -> Result<Self> {
        Ok(Self { pool: pool(&self.config, &self.tls, pool_size)?, ..self.clone() })
    }

    /// Returns the same database with a function that publishes the events of each committed transaction. Events are
    /// hints, i.e. notifications without content that a row may have changed, and can be lost.
    #[must_use]
    pub fn publishing(mut self, publish: impl Fn(Vec<Event>) + Send + Sync + 'static) -> Self {
        self.publish = Arc::new(publish);
        self
    }

    /// Returns the same database with a hook. If a transaction marked assets as stale (see `stale::mark`), the hook
    /// runs in this transaction immediately before the commit. The hook pushes the jobs that evaluate these assets;
    /// this crate cannot push jobs itself.
    #[must_use]
    pub fn before_commit(
        mut self,
        hook: impl for<'a> Fn(&'a Tx) -> HookFuture<'a> + Send + Sync + 'static,
    ) -> Self {
        self.before_commit = Some(Arc::new(hook));
        self
    }

    /// Begins a read-only transaction of one organization.
    pub async fn read(&self, org: OrganizationId) -> Result<Tx> {
        self.begin(Org::new(org), "READ ONLY", Origin::system()).await
    }

    /// As [`Db::read`], but all statements of the transaction see the same snapshot.
    pub async fn snapshot(&self, org: OrganizationId) -> Result<Tx> {
        let mode = "ISOLATION LEVEL REPEATABLE READ READ ONLY";
        self.begin(Org::new(org), mode, Origin::system()).await
    }

    /// Begins a transaction that may change rows of one organization.
    pub async fn write(&self, org: OrganizationId, origin: Origin) -> Result<Tx> {
        self.begin(Org::new(org), "READ WRITE", origin).await
    }

    /// Begins a transaction on users, memberships, sessions and API keys of all organizations.
    pub async fn auth(&self, origin: Origin) -> Result<Tx<Auth>> {
        self.begin(Auth, "READ WRITE", origin).await
    }

    /// Begins a transaction on jobs and schedules of all organizations.
    pub async fn fleet(&self) -> Result<Tx<Fleet>> {
        self.begin(Fleet, "READ WRITE", Origin::system()).await
    }

    async fn begin<K: Kind>(&self, kind: K, mode: &'static str, origin: Origin) -> Result<Tx<K>> {
        let connection = self.pool.get().await?;
        // Formatting into SQL is safe here: `org_id` is a UUID, and the mode and role are constants. `set_config` with
        // `true` has the effect of SET LOCAL, and one statement sets both values.
        let org_id = kind.org().map(|org| org.uuid().to_string()).unwrap_or_default();
        let begin = format!(
            "BEGIN {mode}; SELECT set_config('role', '{}', true), set_config('app.org_id', '{org_id}', true)",
            K::ROLE
        );
        let tx = Tx {
            connection: Some(connection),
            db: self.clone(),
            kind,
            origin,
            writes: mode == "READ WRITE",
            events: Mutex::default(),
        };
        tx.client().batch_execute(&begin).await?;
        Ok(tx)
    }

    /// Checks that the database responds to an empty statement.
    pub async fn ping(&self) -> Result<()> {
        let connection = self.pool.get().await?;
        connection.batch_execute("").await?;
        Ok(())
    }

    /// Returns the version of the database schema: the number of the last migration applied, 0 if none was applied.
    pub async fn schema_version(&self) -> Result<i32> {
        let tx = self.fleet().await?;
        let exists: Option<Row> = tx
            .opt("SELECT 1 AS one WHERE to_regclass('public.schema_migration') IS NOT NULL", &[])
            .await?;
        let version = if exists.is_some() {
            let sql = "SELECT coalesce(max(version), 0) AS version FROM schema_migration";
            tx.one::<Row>(sql, &[]).await?.try_get("version")?
        } else {
            0
        };
        tx.commit().await?;
        Ok(version)
    }
}

fn pool(config: &tokio_postgres::Config, tls: &MakeRustlsConnect, size: usize) -> Result<Pool> {
    let manager = Manager::from_config(
        config.clone(),
        tls.clone(),
        ManagerConfig { recycling_method: RecyclingMethod::Fast },
    );
    Pool::builder(manager)
        .max_size(size)
        .wait_timeout(Some(POOL_WAIT))
        .create_timeout(Some(POOL_WAIT))
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|_| Error::Crypto("the connection pool has no runtime"))
}

/// Returns the TLS configuration for Postgres, used if the URL's `sslmode` requires it. It trusts the machine's root
/// certificates and verifies host names.
pub fn tls() -> MakeRustlsConnect {
    MakeRustlsConnect::new(tls_config())
}

fn tls_config() -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .expect("the provider's own defaults are a valid set of versions")
    .with_root_certificates(roots)
    .with_no_client_auth()
}
