//! Our way to Postgres: a pool, and transactions that carry their organization.
//!
//! Nothing runs outside a transaction, and each takes one database role first; the login itself has no rights
//! (NOINHERIT), so a statement that slipped out of its transaction is refused by Postgres. A connection returns to the
//! pool only after its transaction ended cleanly: a request dropped half-way would otherwise hand its organization to
//! the next borrower. Dropping a transaction discards the connection and cancels what it is still running.
//!
//! Long by the check of the login, which belongs to the roles that transactions take.

use std::{
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    access::viewer::Actor,
    base::{
        entity::OrganizationId,
        error::{Error, Result},
        event::Event,
    },
};

/// How long a request waits for a connection.
const POOL_WAIT: Duration = Duration::from_secs(5);
/// How long one statement may run.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// A parameter of a statement.
pub type Param<'a> = &'a (dyn ToSql + Sync);

/// One column of rows that are written together.
pub(crate) fn column<'a, T, C>(rows: &[&'a T], value: impl Fn(&'a T) -> C) -> Vec<C> {
    rows.iter().map(|row| value(row)).collect()
}

/// What is done in a transaction right before it is committed.
type Following = Arc<
    dyn for<'a> Fn(&'a Tx) -> Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>> + Send + Sync,
>;

/// What a row becomes.
pub trait FromRow: Sized {
    /// Reads the columns by their names.
    fn from_row(row: &Row) -> Result<Self>;
}

impl FromRow for Row {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(row.clone())
    }
}

/// The database; cheap to clone.
#[derive(Clone)]
pub struct Db {
    pool: Pool,
    config: Arc<tokio_postgres::Config>,
    tls: MakeRustlsConnect,
    publish: Arc<dyn Fn(Vec<Event>) + Send + Sync>,
    follow: Option<Following>,
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db").field("pool", &self.pool.status()).finish_non_exhaustive()
    }
}

/// Which of the three roles a transaction takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// One organization's rows.
    App,
    /// People, memberships, sessions, keys: before an organization is known.
    Auth,
    /// Jobs, schedules, due checks, rollups: across organizations.
    Fleet,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::App => "sentryops_app",
            Self::Auth => "sentryops_auth",
            Self::Fleet => "sentryops_fleet",
        }
    }
}

/// Who caused a transaction, from where: what the audit trail keeps beside each change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Who did it.
    pub actor: Actor,
    /// The address the request came from.
    pub source_ip: Option<IpAddr>,
    /// The request it belongs to.
    pub request_id: Option<String>,
}

impl Origin {
    /// The machine itself: migrations, the command line, jobs without a person behind them.
    pub const fn system() -> Self {
        Self { actor: Actor::System, source_ip: None, request_id: None }
    }
}

/// Why a login may not serve.
#[derive(Debug, thiserror::Error)]
pub enum LoginRefusal {
    /// It could read every organization.
    #[error(
        "DATABASE_URL's login is {0}: row security would not hold; use a plain login and `sentryops migrate roles`"
    )]
    TooStrong(&'static str),
    /// It cannot take the roles.
    #[error("DATABASE_URL's login may not take the role {0}: run `sentryops migrate roles`")]
    NotMember(&'static str),
    /// It has their rights without taking them.
    #[error(
        "DATABASE_URL's login inherits its roles' rights: run `sentryops migrate roles` (ALTER ROLE … NOINHERIT)"
    )]
    Inherits,
    /// The database did not answer.
    #[error("the database did not answer")]
    Unavailable(#[source] Error),
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
        Ok(Self { pool, config, tls, publish: Arc::new(|_| ()), follow: None })
    }

    /// The same database over connections of its own, which no other user of this one can exhaust.
    pub fn apart(&self, pool_size: usize) -> Result<Self> {
        Ok(Self { pool: pool(&self.config, &self.tls, pool_size)?, ..self.clone() })
    }

    /// The same database, with somewhere for committed events to go. They are hints and may be lost.
    #[must_use]
    pub fn publishing(mut self, publish: impl Fn(Vec<Event>) + Send + Sync + 'static) -> Self {
        self.publish = Arc::new(publish);
        self
    }

    /// The same database, where what has to follow a change is asked for before its commit, in its transaction: jobs, which
    /// this floor does not know.
    #[must_use]
    pub fn following(
        mut self,
        follow: impl for<'a> Fn(&'a Tx) -> Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.follow = Some(Arc::new(follow));
        self
    }

    /// A read-only transaction of one organization.
    pub async fn read(&self, org: OrganizationId) -> Result<Tx> {
        self.begin(Role::App, Some(org), "READ ONLY", Origin::system()).await
    }

    /// As [`Db::read`], with every statement seeing the same.
    pub async fn snapshot(&self, org: OrganizationId) -> Result<Tx> {
        let mode = "ISOLATION LEVEL REPEATABLE READ READ ONLY";
        self.begin(Role::App, Some(org), mode, Origin::system()).await
    }

    /// A transaction that changes rows of one organization.
    pub async fn write(&self, org: OrganizationId, origin: Origin) -> Result<Tx> {
        self.begin(Role::App, Some(org), "READ WRITE", origin).await
    }

    /// A transaction over people, memberships, sessions and keys.
    pub async fn auth(&self, origin: Origin) -> Result<Tx> {
        self.begin(Role::Auth, None, "READ WRITE", origin).await
    }

    /// A transaction over jobs and schedules of all organizations.
    pub async fn fleet(&self) -> Result<Tx> {
        self.begin(Role::Fleet, None, "READ WRITE", Origin::system()).await
    }

    async fn begin(
        &self,
        role: Role,
        org: Option<OrganizationId>,
        mode: &'static str,
        origin: Origin,
    ) -> Result<Tx> {
        let connection = self.pool.get().await?;
        // The uuid and the names are ours, never a caller's text. `set_config(…, true)` is SET LOCAL, as one statement.
        let org_id = org.map(|org| org.uuid().to_string()).unwrap_or_default();
        let begin = format!(
            "BEGIN {mode}; SELECT set_config('role', '{}', true), set_config('app.org_id', '{org_id}', true)",
            role.name()
        );
        let tx = Tx {
            connection: Some(connection),
            db: self.clone(),
            org,
            origin,
            writes: mode == "READ WRITE",
            events: Mutex::default(),
            is_followed: AtomicBool::new(false),
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

    /// Refuses a login that row security would not hold: that is, or may become, superuser, BYPASSRLS or the owner, or
    /// that inherits.
    pub async fn check_login(&self) -> Result<(), LoginRefusal> {
        let unavailable = |error: Error| LoginRefusal::Unavailable(error);
        let connection = self.pool.get().await.map_err(|error| unavailable(error.into()))?;
        let row = connection
            .query_one(
                // Before PostgreSQL 16 every member may take the role; since then the membership says so.
                "SELECT EXISTS (SELECT FROM pg_roles AS strong
                                WHERE strong.rolsuper AND pg_has_role(login.oid, strong.oid, 'MEMBER')) AS rolsuper,
                        EXISTS (SELECT FROM pg_roles AS strong
                                WHERE strong.rolbypassrls AND pg_has_role(login.oid, strong.oid, 'MEMBER')) AS rolbypassrls,
                        coalesce(pg_has_role(login.oid, to_regrole('sentryops_owner'), 'MEMBER'), false) AS is_owner,
                        coalesce(pg_has_role(login.oid, to_regrole('sentryops_app'), take), false) AS app,
                        coalesce(pg_has_role(login.oid, to_regrole('sentryops_auth'), take), false) AS auth,
                        coalesce(pg_has_role(login.oid, to_regrole('sentryops_fleet'), take), false) AS fleet,
                        EXISTS (SELECT FROM pg_roles AS ours
                                WHERE ours.rolname IN ('sentryops_app', 'sentryops_auth', 'sentryops_fleet')
                                  AND pg_has_role(login.oid, ours.oid, 'USAGE')) AS inherits
                 FROM pg_roles AS login, (SELECT CASE WHEN current_setting('server_version_num')::int >= 160000
                                                 THEN 'SET' ELSE 'MEMBER' END) AS version (take)
                 WHERE login.rolname = session_user",
                &[],
            )
            .await
            .map_err(|error| unavailable(Error::Postgres(error)))?;
        let is = |column: &str| row.try_get::<_, bool>(column).unwrap_or(false);
        if is("rolsuper") {
            return Err(LoginRefusal::TooStrong("a superuser"));
        }
        if is("rolbypassrls") {
            return Err(LoginRefusal::TooStrong("exempt from row security (BYPASSRLS)"));
        }
        if is("is_owner") {
            return Err(LoginRefusal::TooStrong("the owner of the tables"));
        }
        for (column, role) in [("app", Role::App), ("auth", Role::Auth), ("fleet", Role::Fleet)] {
            if !is(column) {
                return Err(LoginRefusal::NotMember(role.name()));
            }
        }
        if is("inherits") {
            return Err(LoginRefusal::Inherits);
        }
        Ok(())
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

/// A transaction: it proves the organization, and collects the events to send once it is committed.
pub struct Tx {
    /// `None` only while it is being ended.
    connection: Option<Object>,
    db: Db,
    org: Option<OrganizationId>,
    origin: Origin,
    writes: bool,
    events: Mutex<Vec<Event>>,
    is_followed: AtomicBool,
}

impl Tx {
    fn client(&self) -> &Object {
        self.connection
            .as_ref()
            .expect("a transaction keeps its connection until it ends, and ending consumes it")
    }

    /// The organization whose rows this transaction sees and writes.
    ///
    /// # Panics
    /// On a transaction of `Db::auth` or `Db::fleet`, which has none: a mistake of the code, not of a caller.
    pub fn org(&self) -> OrganizationId {
        self.org.expect("functions on tenant rows are given transactions of one organization")
    }

    /// Who caused it.
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// When it began, by Postgres' clock: the one that all processes share, whatever their own show.
    pub async fn now(&self) -> Result<DateTime<Utc>> {
        Ok(self.one::<Row>("SELECT now() AS now", &[]).await?.try_get("now")?)
    }

    /// Remembers a hint to send after the commit.
    pub fn emit(&self, event: Event) {
        self.events.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(event);
    }

    /// Remembers that what it changed has to be followed by something: see [`Db::following`].
    pub(crate) fn follow(&self) {
        self.is_followed.store(true, Ordering::Relaxed);
    }

    /// Exactly one row.
    pub async fn one<T: FromRow>(&self, sql: &str, params: &[Param<'_>]) -> Result<T> {
        let statement = self.client().prepare_cached(sql).await?;
        T::from_row(&self.client().query_one(&statement, params).await?)
    }

    /// One row or none.
    pub async fn opt<T: FromRow>(&self, sql: &str, params: &[Param<'_>]) -> Result<Option<T>> {
        let statement = self.client().prepare_cached(sql).await?;
        self.client().query_opt(&statement, params).await?.as_ref().map(T::from_row).transpose()
    }

    /// All rows.
    pub async fn all<T: FromRow>(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<T>> {
        let statement = self.client().prepare_cached(sql).await?;
        self.client().query(&statement, params).await?.iter().map(T::from_row).collect()
    }

    /// How many rows a statement changed.
    pub async fn exec(&self, sql: &str, params: &[Param<'_>]) -> Result<u64> {
        let statement = self.client().prepare_cached(sql).await?;
        Ok(self.client().execute(&statement, params).await?)
    }

    /// As [`Tx::all`], with the parameters' types given: for statements that are put together.
    pub async fn all_typed<T: FromRow>(
        &self,
        sql: &str,
        types: &[Type],
        params: &[Param<'_>],
    ) -> Result<Vec<T>> {
        let statement = self.client().prepare_typed_cached(sql, types).await?;
        self.client().query(&statement, params).await?.iter().map(T::from_row).collect()
    }

    /// Ends it; what it changed is durable, and its events are sent.
    ///
    /// # Errors
    /// Also where a statement of it failed before, whatever became of that error: nothing of it is durable then.
    pub async fn commit(mut self) -> Result<()> {
        if self.is_followed.load(Ordering::Relaxed)
            && let Some(follow) = self.db.follow.clone()
        {
            follow(&self).await?;
        }
        // After a failed statement COMMIT rolls back and reports success; the SELECT does not.
        let end = if self.writes { "SELECT; COMMIT" } else { "COMMIT" };
        self.client().batch_execute(end).await?;
        self.connection = None; // Ended cleanly: back to the pool.
        let events = std::mem::take(
            &mut *self.events.lock().unwrap_or_else(std::sync::PoisonError::into_inner),
        );
        if !events.is_empty() {
            (self.db.publish)(events);
        }
        Ok(())
    }

    /// Ends it without a trace.
    pub async fn rollback(mut self) -> Result<()> {
        self.client().batch_execute("ROLLBACK").await?;
        self.connection = None;
        Ok(())
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        // Not ended: whoever borrowed it next would inherit the transaction and its organization.
        let cancel = connection.cancel_token();
        drop(Object::take(connection));
        let tls = self.db.tls.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // The statement may have ended by itself; then there is nothing to cancel and nothing to do about it.
                let _ = tokio::time::timeout(POOL_WAIT, cancel.cancel_query(tls)).await;
            });
        }
    }
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
