//! Our way to Postgres: a pool, and transactions that carry their organization.
//!
//! Nothing runs outside a transaction, and each takes one database role first; the login itself has no rights
//! (NOINHERIT), so a statement that slipped out of its transaction is refused by Postgres. A connection returns to the
//! pool only after its transaction ended cleanly: a request dropped half-way would otherwise hand its organization to
//! the next borrower. Dropping a transaction discards the connection and cancels what it is still running.

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

/// How long a request waits for a connection.
const POOL_WAIT: Duration = Duration::from_secs(5);
/// How long one statement may run.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// A hook's work, in the transaction that it is of.
pub type Hooked<'a> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

/// What is done in an organization's transaction right before it is committed.
type Hook = Arc<dyn for<'a> Fn(&'a Tx) -> Hooked<'a> + Send + Sync>;

/// The database; cheap to clone.
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
    /// A pool for this URL. Connects when first used, so the process starts while the database is away.
    ///
    /// # Errors
    /// The URL is not one of Postgres.
    pub fn new(url: &str, pool_size: usize, application_name: &str) -> Result<Self> {
        let mut config: tokio_postgres::Config = url.parse()?;
        // Our statements are short: compiling one takes longer than it runs.
        let options = format!(
            "-c jit=off -c statement_timeout={} -c idle_in_transaction_session_timeout=60000 -c lock_timeout=5000",
            STATEMENT_TIMEOUT.as_millis()
        );
        let given = config.get_options().map(|own| format!("{options} {own}"));
        config
            .options(given.unwrap_or(options))
            .application_name(application_name)
            .connect_timeout(POOL_WAIT)
            .keepalives_idle(Duration::from_secs(10))
            .tcp_user_timeout(Duration::from_secs(10));
        let tls = tls();
        let config = Arc::new(config);
        let pool = pool(&config, &tls, pool_size)?;
        Ok(Self { pool, config, tls, publish: Arc::new(|_| ()), before_commit: None })
    }

    /// The same database over connections of its own, which no other user of this one can exhaust.
    pub fn with_own_pool(&self, pool_size: usize) -> Result<Self> {
        Ok(Self { pool: pool(&self.config, &self.tls, pool_size)?, ..self.clone() })
    }

    /// The same database, with somewhere for committed events to go. They are hints and may be lost.
    #[must_use]
    pub fn publishing(mut self, publish: impl Fn(Vec<Event>) + Send + Sync + 'static) -> Self {
        self.publish = Arc::new(publish);
        self
    }

    /// The same database, where a hook runs before the commit of a change that others depend on, in its transaction: it asks for
    /// jobs, which this floor does not know.
    #[must_use]
    pub fn before_commit(
        mut self,
        hook: impl for<'a> Fn(&'a Tx) -> Hooked<'a> + Send + Sync + 'static,
    ) -> Self {
        self.before_commit = Some(Arc::new(hook));
        self
    }

    /// A read-only transaction of one organization.
    pub async fn read(&self, org: OrganizationId) -> Result<Tx> {
        self.begin(Org::new(org), "READ ONLY", Origin::system()).await
    }

    /// As [`Db::read`], with every statement seeing the same.
    pub async fn snapshot(&self, org: OrganizationId) -> Result<Tx> {
        let mode = "ISOLATION LEVEL REPEATABLE READ READ ONLY";
        self.begin(Org::new(org), mode, Origin::system()).await
    }

    /// A transaction that changes rows of one organization.
    pub async fn write(&self, org: OrganizationId, origin: Origin) -> Result<Tx> {
        self.begin(Org::new(org), "READ WRITE", origin).await
    }

    /// A transaction over people, memberships, sessions and keys.
    pub async fn auth(&self, origin: Origin) -> Result<Tx<Auth>> {
        self.begin(Auth, "READ WRITE", origin).await
    }

    /// A transaction over jobs and schedules of all organizations.
    pub async fn fleet(&self) -> Result<Tx<Fleet>> {
        self.begin(Fleet, "READ WRITE", Origin::system()).await
    }

    async fn begin<K: Kind>(&self, kind: K, mode: &'static str, origin: Origin) -> Result<Tx<K>> {
        let connection = self.pool.get().await?;
        // The uuid and the names are ours, never a caller's text. `set_config(…, true)` is SET LOCAL, as one statement.
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

    /// Asks the database for a sign of life.
    pub async fn ping(&self) -> Result<()> {
        let connection = self.pool.get().await?;
        connection.batch_execute("").await?;
        Ok(())
    }

    /// The schema's version: what `migrate up` has applied last, 0 before the first time.
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

/// TLS towards Postgres, used where the URL's `sslmode` asks for it: the machine's roots, names verified.
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
