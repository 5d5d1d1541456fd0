//! Redis servers for these tests.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) use domain::testing::redis_url as shared_url;
use jobs::Redis;
use rustix::process::{Pid, Signal, kill_process};
use uuid::Uuid;

/// Connects to the Redis server that all tests share. Tests must use keys of their own, and must not flush.
pub(crate) async fn shared() -> Redis {
    ready(&shared_url()).await
}

pub(crate) async fn ready(url: &str) -> Redis {
    let redis = Redis::open(url).unwrap();
    redis.ready(Duration::from_secs(10)).await.expect("Redis does not answer");
    redis
}

/// Polls until the condition is true. Fails after 20 s.
pub(crate) async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so().await {
        assert!(Instant::now() < deadline, "not true within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Redis server of one test, on a socket in a temporary folder.
pub(crate) struct Server {
    folder: PathBuf,
    password: &'static str,
    child: Option<Child>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let mut server = Self::not_started("");
        server.start_again();
        server
    }

    pub(crate) fn start_with_password(password: &'static str) -> Self {
        let mut server = Self::not_started(password);
        server.start_again();
        server
    }

    /// Returns a server that is not started yet.
    pub(crate) fn not_started(password: &'static str) -> Self {
        let folder = std::env::temp_dir().join(format!("jobs-{}", Uuid::now_v7().simple()));
        std::fs::create_dir(&folder).unwrap();
        Self { folder, password, child: None }
    }

    pub(crate) fn start_again(&mut self) {
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket", "redis.sock"])
            .args(["--requirepass", self.password])
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server must be installed");
        self.child = Some(child);
    }

    pub(crate) fn socket(&self) -> String {
        self.folder.join("redis.sock").to_str().unwrap().to_owned()
    }

    pub(crate) fn url(&self) -> String {
        format!("unix://{}", self.socket())
    }

    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().unwrap()), signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}
