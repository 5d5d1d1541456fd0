//! Test deployments of `sentryops api`: processes with a database, keys, addresses and log.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use base64::prelude::{BASE64_STANDARD, Engine};
use domain::testing::{TestDb, redis_url};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::client::Client;

pub const BINARY: &str = env!("CARGO_BIN_EXE_sentryops");

/// Waits until `probe` returns a value. Panics after 20 s.
pub async fn until<T>(condition: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    within(Duration::from_secs(20), condition, &mut probe).await
}

/// Waits until `probe` returns a value. Panics after `time`, which is a limit of the tested behaviour.
pub async fn within<T>(
    time: Duration,
    condition: &str,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(began.elapsed() < time, "not within {time:?}: {condition}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A key ring with a single key.
pub struct TestKeyRing {
    pub kid: &'static str,
    pub secret: [u8; 32],
}

impl TestKeyRing {
    pub fn new(kid: &'static str) -> Self {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).unwrap();
        Self { kid, secret }
    }

    pub fn text(&self) -> String {
        BASE64_STANDARD.encode(self.secret)
    }
}

/// State that replicas share: the database and the keys.
pub struct TestDeployment {
    pub db: TestDb,
    pub jwt: TestKeyRing,
    pub encryption: TestKeyRing,
}

impl TestDeployment {
    pub async fn new() -> Self {
        Self {
            db: TestDb::new().await,
            jwt: TestKeyRing::new("jwt"),
            encryption: TestKeyRing::new("enc"),
        }
    }

    /// Returns the complete environment of a process of this deployment.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("DATABASE_URL", self.db.url.clone()),
            ("REDIS_URL", redis_url()),
            ("JWT_KEYS", format!("{}:{}", self.jwt.kid, self.jwt.text())),
            ("ENCRYPTION_KEYS", format!("{}:{}", self.encryption.kid, self.encryption.text())),
            ("LISTEN_ADDR", "127.0.0.1:0".into()),
            ("HEALTH_ADDR", "127.0.0.1:0".into()),
            ("AUTH_LIMIT", "1000000/minute".into()),
            ("REQUEST_LIMIT", "1000000/minute".into()),
            ("ADDRESS_LIMIT", "1000000/minute".into()),
            // All tests share a Postgres that allows 100 connections.
            ("DATABASE_POOL_SIZE", "6".into()),
        ]
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(arguments);
        command.envs(self.environment());
        command
    }

    /// Starts a replica, and waits until the replica is ready.
    pub async fn api(&self) -> Api {
        self.api_with(&[]).await
    }

    /// Starts a replica with additional settings, and waits until the replica is ready.
    pub async fn api_with(&self, settings: &[(&str, &str)]) -> Api {
        let mut command = self.command(&["api"]);
        command.envs(settings.iter().copied()).stdin(Stdio::null());
        Api::start(command).await
    }

    /// Runs `sentryops admin`, which must succeed, and returns its output.
    pub fn admin(&self, arguments: &[&str], password: &str) -> String {
        let arguments = [&["admin"], arguments].concat();
        let output = run(self.command(&arguments), password);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    }
}

/// Returns a command of `sentryops` with an empty environment.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

/// Runs a command and waits for its end.
pub fn run(mut command: Command, stdin: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Fails if the command ends without reading its input.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A running process of `sentryops api`.
pub struct Api {
    child: Child,
    pub address: SocketAddr,
    pub health: SocketAddr,
    log: Arc<Mutex<Vec<u8>>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Api {
    pub async fn start(command: Command) -> Self {
        let api = Self::start_unready(command).await;
        // Wait for Redis too, because limits are counted locally until it is connected.
        let ready =
            async || (api.readiness().await == (200, json!({ "status": "ready" }))).then_some(());
        until("the API is ready", ready).await;
        api
    }

    /// Starts a process, and waits until it serves, but not until it is ready.
    pub async fn start_unready(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let stored = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            let mut line = Vec::new();
            while stderr.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                stored.lock().unwrap().append(&mut line);
            }
        });
        let addresses = async || {
            let log = text(&log.lock().unwrap());
            let address = |name: &str| {
                let line = log.lines().find(|line| line.contains(name))?;
                let line: Value = serde_json::from_str(line).unwrap();
                Some(line[name].as_str().unwrap().parse::<SocketAddr>().unwrap())
            };
            Some((address("api.address")?, address("health.address")?))
        };
        let (address, health) = until("the API says where it serves", addresses).await;
        Self { child, address, health, log, reader: Some(reader) }
    }

    /// Returns status and body of `/readyz`.
    pub async fn readiness(&self) -> (u16, Value) {
        let url = format!("http://{}/readyz", self.health);
        let Ok(answer) = Client::http("127.0.0.1".parse().unwrap()).get(url).send().await else {
            return (0, Value::Null);
        };
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// Returns the sum of a counter on `/metrics` over all labels; 0 if the counter does not exist yet.
    pub async fn counted(&self, name: &str) -> usize {
        let url = format!("http://{}/metrics", self.health);
        let answer = Client::http("127.0.0.1".parse().unwrap()).get(url).send().await.unwrap();
        let text = answer.text().await.unwrap();
        let values = text.lines().filter(|line| line.starts_with(name));
        values.map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()).sum()
    }

    pub fn url(&self) -> String {
        format!("http://{}/graphql", self.address)
    }

    /// Returns the log, i.e. all output on standard error so far.
    pub fn log(&self) -> String {
        text(&self.log.lock().unwrap())
    }

    pub fn terminate(&self) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
    }

    /// Sends SIGTERM and waits until the process has ended.
    pub async fn end(&mut self) -> ExitStatus {
        self.terminate();
        let ended = async || self.child.try_wait().unwrap();
        let status = until("the process has ended", ended).await;
        self.reader.take().unwrap().join().unwrap();
        status
    }

    /// Returns the standard output. Call this after [`Self::end`].
    pub fn printed(&mut self) -> String {
        let mut printed = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
        printed
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = self.child.kill(); // Fails if the process has ended.
        let _ = self.child.wait();
    }
}

/// Deployment and server that all tests without special settings share.
pub struct SharedServer {
    pub deployment: TestDeployment,
    pub api: Api,
}

/// Returns the shared server. The server runs under a shell, which stops the server when its standard input is closed,
/// i.e. at the end of this test process.
pub async fn shared_server() -> &'static SharedServer {
    static SHARED_SERVER: OnceCell<SharedServer> = OnceCell::const_new();
    SHARED_SERVER
        .get_or_init(|| async {
            let deployment = TestDeployment::new().await;
            let mut command = Command::new("sh");
            command
                .args(["-c", "\"$0\" api & read -r _; kill $!; wait $!", BINARY])
                .env_clear()
                .envs(deployment.environment())
                .stdin(Stdio::piped());
            let api = Api::start(command).await;
            SharedServer { deployment, api }
        })
        .await
}
