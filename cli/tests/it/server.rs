//! `sentryops api` as a process: its database, its keys, its address, its log.

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
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::client::Client;

pub const BINARY: &str = env!("CARGO_BIN_EXE_sentryops");

/// A fact that comes true sooner or later; later than the deadline is a failure.
pub async fn until<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    within(Duration::from_secs(20), what, &mut found).await
}

/// The same with a deadline that is part of the promise.
pub async fn within<T>(time: Duration, what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(fact) = found().await {
            return fact;
        }
        assert!(began.elapsed() < time, "not within {time:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A key ring of one key.
pub struct Ring {
    pub kid: &'static str,
    pub secret: [u8; 32],
}

impl Ring {
    pub fn new(kid: &'static str) -> Self {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).unwrap();
        Self { kid, secret }
    }

    pub fn text(&self) -> String {
        BASE64_STANDARD.encode(self.secret)
    }
}

/// What replicas share: a database and the keys.
pub struct TestDeployment {
    pub db: TestDb,
    pub jwt: Ring,
    pub encryption: Ring,
}

impl TestDeployment {
    pub async fn new() -> Self {
        Self { db: TestDb::new().await, jwt: Ring::new("jwt"), encryption: Ring::new("enc") }
    }

    /// The environment of a process of this deployment, and nothing else.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("DATABASE_URL", self.db.url.clone()),
            ("REDIS_URL", redis_url()),
            ("JWT_KEYS", format!("{}:{}", self.jwt.kid, self.jwt.text())),
            ("ENCRYPTION_KEYS", format!("{}:{}", self.encryption.kid, self.encryption.text())),
            ("LISTEN_ADDR", "127.0.0.1:0".into()),
            ("HEALTH_ADDR", "127.0.0.1:0".into()),
            ("AUTH_LIMIT", "1000000/minute".into()),
            // Postgres of the whole suite allows 100 connections.
            ("DATABASE_POOL_SIZE", "6".into()),
        ]
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(arguments);
        command.envs(self.environment());
        command
    }

    /// A replica that serves.
    pub async fn api(&self) -> Api {
        self.api_with(&[]).await
    }

    /// A replica that serves, with settings of its own.
    pub async fn api_with(&self, settings: &[(&str, &str)]) -> Api {
        let mut command = self.command(&["api"]);
        command.envs(settings.iter().copied()).stdin(Stdio::null());
        Api::start(command).await
    }

    /// `sentryops admin`, which must succeed; what it prints.
    pub fn admin(&self, arguments: &[&str], password: &str) -> String {
        let arguments = [&["admin"], arguments].concat();
        let output = run(self.command(&arguments), password);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    }
}

/// `sentryops` in an empty environment.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub fn run(mut command: Command, stdin: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that reads nothing may be gone before it is told anything.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A running `sentryops api`.
pub struct Api {
    child: Child,
    pub address: SocketAddr,
    pub health: SocketAddr,
    log: Arc<Mutex<Vec<u8>>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Api {
    pub async fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let kept = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            let mut line = Vec::new();
            while stderr.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                kept.lock().unwrap().append(&mut line);
            }
        });
        let serves = async || {
            let log = text(&log.lock().unwrap());
            let address = |name: &str| {
                let line = log.lines().find(|line| line.contains(name))?;
                let line: Value = serde_json::from_str(line).unwrap();
                Some(line[name].as_str().unwrap().parse::<SocketAddr>().unwrap())
            };
            Some((address("api.address")?, address("health.address")?))
        };
        let (address, health) = until("the API says where it serves", serves).await;
        let api = Self { child, address, health, log, reader: Some(reader) };
        // Limits are counted by Redis only once it is connected.
        let ready = async || (api.readiness().await == 200).then_some(());
        until("the API is ready", ready).await;
        api
    }

    async fn readiness(&self) -> u16 {
        let url = format!("http://{}/readyz", self.health);
        Client::http("127.0.0.1".parse().unwrap())
            .get(url)
            .send()
            .await
            .map_or(0, |answer| answer.status().as_u16())
    }

    /// The sum of a counter of its `/metrics`, whatever the labels; 0 where it has not counted yet.
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

    /// Everything it wrote to standard error until now.
    pub fn log(&self) -> String {
        text(&self.log.lock().unwrap())
    }

    pub fn terminate(&self) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
    }

    /// Asks it to end, and waits until it has.
    pub async fn end(&mut self) -> ExitStatus {
        self.terminate();
        let ended = async || self.child.try_wait().unwrap();
        let status = until("the process has ended", ended).await;
        self.reader.take().unwrap().join().unwrap();
        status
    }

    /// What it printed; after its end.
    pub fn printed(&mut self) -> String {
        let mut printed = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
        printed
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = self.child.kill(); // It may have ended.
        let _ = self.child.wait();
    }
}

/// One server for all tests that need nothing special of it.
pub struct World {
    pub deployment: TestDeployment,
    pub api: Api,
}

/// The shared server. No test ends it: a shell does, when its standard input closes with this process.
pub async fn world() -> &'static World {
    static WORLD: OnceCell<World> = OnceCell::const_new();
    WORLD
        .get_or_init(|| async {
            let deployment = TestDeployment::new().await;
            let mut command = Command::new("sh");
            command
                .args(["-c", "\"$0\" api & read -r _; kill $!; wait $!", BINARY])
                .env_clear()
                .envs(deployment.environment())
                .stdin(Stdio::piped());
            let api = Api::start(command).await;
            World { deployment, api }
        })
        .await
}
