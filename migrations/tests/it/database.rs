//! Test database: one per test, dropped together with the logins that the test created.

use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use migrations::{Migration, RolesOutcome};
use tokio_postgres::{Client, Config, NoTls};

/// Returns the URL of the private Postgres. No test can run without it, so the process ends with one sentence instead
/// of one panic per test. (`domain::testing` does the same for the other crates.)
fn admin_url() -> String {
    std::env::var("TEST_ADMIN_URL").unwrap_or_else(|_| {
        static PRINTED: Mutex<()> = Mutex::new(());
        let _printed = PRINTED.lock(); // Other tests wait here until the process has ended.
        // Bypasses the test harness, which would capture the text until the test ends. Errors are ignored: if stderr is
        // closed, nobody reads the text.
        let _ = writeln!(
            std::io::stderr(),
            "\nTEST_ADMIN_URL is not set: these tests need a private Postgres. Run all tests with `make test`, or some \
             under `sentryops services -- cargo test …`."
        );
        std::process::exit(1)
    })
}

/// Test database with the name of the application's login for it.
pub(crate) struct TestDb {
    admin: Config,
    pub(crate) name: String,
    pub(crate) login: String,
    logins: Mutex<Vec<String>>,
}

impl TestDb {
    /// Creates a database in which the roles have no privileges. In a used cluster the roles may exist already.
    pub(crate) async fn bare() -> Self {
        let admin: Config = admin_url().parse().expect("TEST_ADMIN_URL is a Postgres URL");
        let name = unique("mig");
        let login = format!("{name}_login");
        connect(&admin)
            .await
            .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0"))
            .await
            .unwrap();
        Self { admin, name, logins: Mutex::new(vec![login.clone()]), login }
    }

    /// Creates a database with everything that `up` needs.
    pub(crate) async fn new() -> Self {
        let db = Self::bare().await;
        let made = migrations::roles(&mut db.admin().await, &db.login).await.unwrap();
        assert!(matches!(made, RolesOutcome::Fixed { .. }), "{made:?}");
        db
    }

    /// Opens a session as the superuser.
    pub(crate) async fn admin(&self) -> Client {
        connect(self.admin.clone().dbname(&self.name)).await
    }

    /// Opens a session as `login`, and sets its password first.
    pub(crate) async fn session(&self, login: &str) -> Client {
        self.admin()
            .await
            .batch_execute(&format!("ALTER ROLE {login} PASSWORD 'pw'"))
            .await
            .unwrap();
        connect(self.admin.clone().dbname(&self.name).user(login).password("pw")).await
    }

    /// Creates a login with the given attributes, e.g. `CREATEROLE`, and returns its name.
    pub(crate) async fn create_login(&self, suffix: &str, attributes: &str) -> String {
        let login = format!("{}_{suffix}", self.name);
        self.logins.lock().unwrap().push(login.clone());
        let sql = format!("CREATE ROLE {login} LOGIN {attributes}");
        self.admin().await.batch_execute(&sql).await.unwrap();
        login
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        let (admin, name) = (self.admin.clone(), self.name.clone());
        let logins = self.logins.lock().unwrap().clone();
        let dropped = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(
                async {
                    let client = connect(&admin).await;
                    let database = format!("DROP DATABASE {name} WITH (FORCE)");
                    client.batch_execute(&database).await.unwrap();
                    // In this order: later logins may have granted privileges to the first.
                    for login in logins {
                        let role = format!("DROP ROLE IF EXISTS \"{login}\"");
                        client.batch_execute(&role).await.unwrap();
                    }
                },
            );
        })
        .join();
        assert!(dropped.is_ok() || std::thread::panicking());
    }
}

async fn connect(config: &Config) -> Client {
    let mut config = config.clone();
    config.connect_timeout(Duration::from_secs(10)).application_name("migrations-test");
    let (client, connection) = config.connect(NoTls).await.expect("Postgres answers");
    tokio::spawn(connection);
    client
}

fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    format!("{prefix}_{}_{now}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Two migrations that create one table each.
pub(crate) const TWO: &[Migration] = &[
    Migration {
        version: 1,
        name: "a",
        up: "CREATE TABLE a (id int PRIMARY KEY);\nGRANT SELECT ON a TO sentryops_app;",
        down: "DROP TABLE a;",
    },
    Migration {
        version: 2,
        name: "b",
        up: "CREATE TABLE b (a int REFERENCES a);",
        down: "DROP TABLE b;",
    },
];

/// Returns `TWO` and a third migration.
pub(crate) fn and_then(up: &'static str, down: &'static str) -> Vec<Migration> {
    let mut list = TWO.to_vec();
    list.push(Migration { version: 3, name: "c", up, down });
    list
}

/// Returns the tables of schema public with their owners.
pub(crate) async fn tables(client: &Client) -> Vec<String> {
    let rows = client
        .query(
            "SELECT tablename || ' of ' || tableowner AS entry FROM pg_tables
             WHERE schemaname = 'public' ORDER BY tablename",
            &[],
        )
        .await
        .unwrap();
    rows.iter().map(|row| row.get("entry")).collect()
}
