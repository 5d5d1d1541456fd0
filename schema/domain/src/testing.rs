//! A database per test: created with `CREATE DATABASE … TEMPLATE`, and dropped after the test.
//!
//! The tests run under `sentryops services -- cargo test`, which starts a private Postgres and Redis and passes their
//! URLs in the environment. The first test process creates the template database and applies the migrations to it;
//! other processes wait.

use std::{
    io::Write as _,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use tokio_postgres::{Client, NoTls};

use crate::Db;

pub mod compliance;
pub mod earlier;

/// Login of the application in tests: no superuser, NOINHERIT, member of the three database roles.
const LOGIN: &str = "sentryops_test";
const LOGIN_PASSWORD: &str = "a-test-login-without-any-rights-of-its-own";

/// A migrated database for a single test, with a pool configured as in the application.
pub struct TestDb {
    /// The database as the application connects to it.
    pub db: Db,
    /// URL of the database for the application's login.
    pub url: String,
    name: String,
    admin_url: String,
}

impl std::ops::Deref for TestDb {
    type Target = Db;
    fn deref(&self) -> &Db {
        &self.db
    }
}

/// Returns the URL of the private Postgres for its superuser.
pub fn admin_url() -> String {
    service_url("TEST_ADMIN_URL")
}

/// Returns the URL of the private Redis, which all tests share.
pub fn redis_url() -> String {
    service_url("REDIS_URL")
}

/// Returns the value of an environment variable. If the variable is not set, prints one message and exits, because
/// without the private services almost every test of the process would panic.
fn service_url(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        static MESSAGE_LOCK: Mutex<()> = Mutex::new(());
        // Concurrent tests block on this lock until the process exits, so the message is printed once.
        let _lock = MESSAGE_LOCK.lock();
        // Written directly to stderr, because the test harness prints captured output only after the test. A failed
        // write is ignored, because it could not be reported either.
        let _ = writeln!(
            std::io::stderr(),
            "\n{variable} is not set: these tests need a private Postgres and Redis. Run all tests with `make test`, \
             or some under `sentryops services -- cargo test …`."
        );
        std::process::exit(1)
    })
}

/// Returns the URL with another database name, and with other credentials if `login` is set.
fn url(base: &str, database: &str, login: Option<(&str, &str)>) -> String {
    let mut url = base.to_owned();
    let (scheme, rest) = url.split_once("://").expect("TEST_ADMIN_URL is a URL");
    let (authority, query) = rest.split_once('/').unwrap_or((rest, ""));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let query = query.split_once('?').map(|(_, query)| format!("?{query}")).unwrap_or_default();
    let authority = login.map_or_else(
        || authority.to_owned(),
        |(user, password)| format!("{user}:{password}@{host}"),
    );
    url = format!("{scheme}://{authority}/{database}{query}");
    url
}

/// Opens a connection to the URL, usually as superuser, so that a test can inspect or break any state.
pub async fn connect(url: &str) -> Client {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.expect("the test database answers");
    tokio::spawn(connection);
    client
}

/// Returns the name of the template database. The name contains a hash of the migrations, so a changed migration gets a
/// new template.
fn template() -> String {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    for migration in migrations::all() {
        hash.update(migration.up);
    }
    let hash = format!("{:x}", hash.finalize());
    format!("sentryops_template_{}", &hash[..12])
}

/// Creates the template database unless it exists. An advisory lock makes concurrent test processes wait for the first.
async fn ensure_template(admin_url: &str) -> String {
    let admin = connect(admin_url).await;
    let template = template();
    admin
        .batch_execute("SELECT pg_advisory_lock(7301)")
        .await
        .expect("other test processes release the lock");
    let exists = admin
        .query_opt("SELECT 1 FROM pg_database WHERE datname = $1", &[&template])
        .await
        .expect("the catalogue can be read")
        .is_some();
    if !exists {
        admin
            .batch_execute(&format!(
                "DO $$ BEGIN CREATE ROLE {LOGIN} LOGIN NOINHERIT PASSWORD '{LOGIN_PASSWORD}';
                 EXCEPTION WHEN duplicate_object THEN NULL; END $$"
            ))
            .await
            .expect("the superuser can create a login");
        let unfinished = format!("{template}_new");
        admin
            .batch_execute(&format!("DROP DATABASE IF EXISTS {unfinished}"))
            .await
            .expect("an unfinished template can be dropped");
        admin
            .batch_execute(&format!("CREATE DATABASE {unfinished}"))
            .await
            .expect("the superuser can create a database");
        {
            let mut owner = connect(&url(admin_url, &unfinished, None)).await;
            migrations::roles(&mut owner, LOGIN).await.expect("the superuser can create roles");
            migrations::up(&mut owner).await.expect("the migrations apply to an empty database");
        }
        // Renamed only when complete, so an interrupted run leaves no partial template under the final name.
        let mut renamed = Err(());
        for _ in 0..200 {
            let rename = format!("ALTER DATABASE {unfinished} RENAME TO {template}");
            renamed = admin.batch_execute(&rename).await.map_err(|_| ());
            if renamed.is_ok() {
                break;
            }
            tokio::task::yield_now().await; // The connection that applied the migrations is still closing.
        }
        renamed.expect("no other process is connected to the new template");
    }
    admin
        .batch_execute("SELECT pg_advisory_unlock(7301)")
        .await
        .expect("this session holds the lock");
    template
}

impl TestDb {
    /// Creates a fresh, migrated, empty database.
    pub async fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let admin_url = admin_url();
        let template = ensure_template(&admin_url).await;
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{}_{started}_{number}", std::process::id());
        let admin = connect(&admin_url).await;
        let row = admin
            .query_one("SELECT current_setting('server_version_num')::int >= 150000 AS has", &[])
            .await
            .expect("the server knows its version");
        // Copying files is ten times as fast as writing every page to the WAL, which is the default since PostgreSQL
        // 15.
        let strategy = if row.get("has") { "STRATEGY file_copy" } else { "" };
        admin
            .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template} {strategy}"))
            .await
            .expect("a database can be created from the template");
        let url = url(&admin_url, &name, Some((LOGIN, LOGIN_PASSWORD)));
        let db = Db::new(&url, 8, "sentryops-test").expect("the URL is a Postgres URL");
        Self { db, url, name, admin_url }
    }

    /// Opens a connection to this database as superuser.
    pub async fn superuser(&self) -> Client {
        connect(&url(&self.admin_url, &self.name, None)).await
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        let (admin_url, name) = (self.admin_url.clone(), self.name.clone());
        // Runs on a separate thread and runtime, because the test's runtime is shutting down and cannot be blocked on.
        let cleanup = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let admin = connect(&admin_url).await;
                let _ = admin
                    .batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
                    .await;
            });
            Ok::<(), std::io::Error>(())
        });
        let _ = cleanup.join(); // If the drop fails, the database is removed together with the private server.
    }
}
