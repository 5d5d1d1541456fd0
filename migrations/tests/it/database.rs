//! A database of its own for each test, dropped with the logins that the test made.

use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use migrations::{Migration, RolesOutcome};
use tokio_postgres::{Client, Config, NoTls};

/// The URL of the private Postgres. Without it no test can run, so one sentence ends the process instead of a panic a test.
/// (`domain::testing` does the same for the crates above.)
fn admin_url() -> String {
    std::env::var("TEST_ADMIN_URL").unwrap_or_else(|_| {
        static SAID: Mutex<()> = Mutex::new(());
        let _said = SAID.lock(); // Other tests that come here wait until the process has ended.
        // Past the harness, which would keep it until the test ends; where nobody reads, there is nobody to tell.
        let _ = writeln!(
            std::io::stderr(),
            "\nTEST_ADMIN_URL is not set: these tests need a private Postgres. Run all tests with `make test`, or some \
             under `sentryops services -- cargo test …`."
        );
        std::process::exit(1)
    })
}

/// A new database, and a login of the application for it.
pub(crate) struct TestDb {
    admin: Config,
    pub(crate) name: String,
    pub(crate) login: String,
    logins: Mutex<Vec<String>>,
}

impl TestDb {
    /// Without roles granted anything here; in a used cluster they exist all the same.
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

    /// With everything that `up` needs.
    pub(crate) async fn new() -> Self {
        let db = Self::bare().await;
        let made = migrations::roles(&mut db.admin().await, &db.login).await.unwrap();
        assert!(matches!(made, RolesOutcome::Made { .. }), "{made:?}");
        db
    }

    /// A new session of the superuser.
    pub(crate) async fn admin(&self) -> Client {
        connect(self.admin.clone().dbname(&self.name)).await
    }

    /// A new session of a login.
    pub(crate) async fn session(&self, login: &str) -> Client {
        self.admin()
            .await
            .batch_execute(&format!("ALTER ROLE {login} PASSWORD 'pw'"))
            .await
            .unwrap();
        connect(self.admin.clone().dbname(&self.name).user(login).password("pw")).await
    }

    /// A new login with such attributes, e.g. `CREATEROLE`.
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
                    // In this order: the later ones may have granted to the first.
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

/// Two tables, one after the other.
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

/// `TWO` and one more.
pub(crate) fn and_then(up: &'static str, down: &'static str) -> Vec<Migration> {
    let mut list = TWO.to_vec();
    list.push(Migration { version: 3, name: "c", up, down });
    list
}

/// The tables of schema public, with their owners.
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
