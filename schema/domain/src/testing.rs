//! A database per test: `CREATE DATABASE … TEMPLATE`, dropped afterwards.
//!
//! The suite runs under `sentryops services -- cargo test`, which starts a private Postgres and says where it is. The
//! template is migrated once per run and schema, whoever comes first.

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

/// The login that tests serve as: plain, NOINHERIT, member of the three roles.
const LOGIN: &str = "sentryops_test";
const LOGIN_PASSWORD: &str = "a-test-login-without-any-rights-of-its-own";

/// A migrated database of one's own, with a pool as the application has it.
pub struct TestDb {
    /// As the application sees it.
    pub db: Db,
    /// The URL of the application's login.
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

/// The URL of the private Postgres, as its superuser.
pub fn admin_url() -> String {
    service_url("TEST_ADMIN_URL")
}

/// The URL of the private Redis, which all tests share.
pub fn redis_url() -> String {
    service_url("REDIS_URL")
}

/// Without private services hardly a test of the binary can run, so one sentence ends it instead of a panic a test.
fn service_url(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        static SAID: Mutex<()> = Mutex::new(());
        // Other tests that come here wait until the process has ended.
        let _said = SAID.lock();
        // Past the harness, which would keep it until the test ends; where nobody reads, there is nobody to tell.
        let _ = writeln!(
            std::io::stderr(),
            "\n{variable} is not set: these tests need a private Postgres and Redis. Run all tests with `make test`, \
             or some under `sentryops services -- cargo test …`."
        );
        std::process::exit(1)
    })
}

/// The same server and credentials with another database, or another login.
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

/// A connection as superuser, for what a test needs to see or break.
pub async fn connect(url: &str) -> Client {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.expect("the test database answers");
    tokio::spawn(connection);
    client
}

/// The template's name: one per schema, so that a changed migration makes a new one.
fn template() -> String {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    for migration in migrations::all() {
        hash.update(migration.up);
    }
    let hash = format!("{:x}", hash.finalize());
    format!("sentryops_template_{}", &hash[..12])
}

/// Makes the template unless it is there; test processes that come at once wait for the first.
async fn ensure_template(admin_url: &str) -> String {
    let admin = connect(admin_url).await;
    let template = template();
    admin
        .batch_execute("SELECT pg_advisory_lock(7301)")
        .await
        .expect("the lock is free in the end");
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
            .expect("a login can be made");
        let building = format!("{template}_new");
        admin
            .batch_execute(&format!("DROP DATABASE IF EXISTS {building}"))
            .await
            .expect("an unfinished template goes");
        admin
            .batch_execute(&format!("CREATE DATABASE {building}"))
            .await
            .expect("a database can be made");
        {
            let mut owner = connect(&url(admin_url, &building, None)).await;
            migrations::roles(&mut owner, LOGIN).await.expect("the superuser may make roles");
            migrations::up(&mut owner).await.expect("the migrations apply to an empty database");
        }
        // Renamed when whole: an interrupted run leaves no half-made template under the name.
        let mut renamed = Err(());
        for _ in 0..200 {
            let rename = format!("ALTER DATABASE {building} RENAME TO {template}");
            renamed = admin.batch_execute(&rename).await.map_err(|_| ());
            if renamed.is_ok() {
                break;
            }
            tokio::task::yield_now().await; // The migrating connection is still closing.
        }
        renamed.expect("nobody else is connected to the new template");
    }
    admin.batch_execute("SELECT pg_advisory_unlock(7301)").await.expect("the lock is ours");
    template
}

impl TestDb {
    /// A fresh, migrated, empty database.
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
        // Copying files is ten times as fast as logging their pages, and from version 15 on is not the default.
        let strategy = if row.get("has") { "STRATEGY file_copy" } else { "" };
        admin
            .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template} {strategy}"))
            .await
            .expect("a database can be made of the template");
        let url = url(&admin_url, &name, Some((LOGIN, LOGIN_PASSWORD)));
        let db = Db::new(&url, 8, "sentryops-test").expect("the URL is one of Postgres");
        Self { db, url, name, admin_url }
    }

    /// A connection as superuser to this database.
    pub async fn superuser(&self) -> Client {
        connect(&url(&self.admin_url, &self.name, None)).await
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        let (admin_url, name) = (self.admin_url.clone(), self.name.clone());
        // A thread with a runtime of its own: the test's is going down and cannot be waited on.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let admin = connect(&admin_url).await;
                let _ = admin
                    .batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
                    .await;
            });
            Ok::<(), std::io::Error>(())
        });
        let _ = dropped.join(); // A database left behind goes with the private server.
    }
}
