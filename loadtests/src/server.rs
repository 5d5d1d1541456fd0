//! Our own server: the binary, started as its users start it.

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    child::{self, Child},
    client::{self, Connection},
    stores::Stores,
};

const READY_WITHIN: Duration = Duration::from_mins(2);
const ASK_EVERY: Duration = Duration::from_millis(2);
/// Where `up` keeps the keys it made, below its data folder.
const KEYS: [(&str, &str); 2] =
    [("JWT_KEYS_FILE", "secrets/jwt_keys"), ("ENCRYPTION_KEYS_FILE", "secrets/encryption_keys")];

/// A server that answers.
pub(crate) struct Server {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// From starting the process to the first answer.
    pub(crate) started_in: Duration,
    child: Child,
}

impl Server {
    /// `up --demo` with data and logs in this folder: with stores of its own, or with these.
    pub(crate) async fn up(binary: &Path, folder: &Path, stores: Option<&Stores>) -> Result<Self> {
        let mut command = child::command(binary);
        command.args(["up", "--demo"]);
        if let Some(stores) = stores {
            command.env("DATABASE_URL", &stores.database).env("REDIS_URL", &stores.redis);
            command.env("DATABASE_OWNER_URL", &stores.owner);
        }
        Self::start("up", folder, command).await
    }

    /// `api` with the keys that `up` made in this folder, on the same stores but through this address of Postgres.
    pub(crate) async fn api(
        binary: &Path,
        folder: &Path,
        stores: &Stores,
        database: &str,
    ) -> Result<Self> {
        let mut command = child::command(binary);
        command.arg("api").env("DATABASE_URL", database).env("REDIS_URL", &stores.redis);
        command.envs(KEYS.map(|(name, file)| (name, data(folder).join(file))));
        Self::start("api", folder, command).await
    }

    /// `worker` on the same stores, with the same keys, for these queues.
    pub(crate) fn worker(
        binary: &Path,
        folder: &Path,
        stores: &Stores,
        queues: &[&str],
    ) -> Result<Command> {
        let [health, _] = free_addresses()?;
        let mut command = child::command(binary);
        command.arg("worker").env("HEALTH_ADDR", health.to_string());
        command.args(queues.iter().flat_map(|queue| ["--queue", queue]));
        command.env("DATABASE_URL", &stores.database).env("REDIS_URL", &stores.redis);
        command.envs(KEYS.map(|(name, file)| (name, data(folder).join(file))));
        command.env("DATA_DIR", data(folder));
        Ok(command)
    }

    async fn start(name: &str, folder: &Path, mut command: Command) -> Result<Self> {
        let [address, health] = free_addresses()?;
        command
            .env("DATA_DIR", data(folder))
            .env("LISTEN_ADDR", address.to_string())
            .env("HEALTH_ADDR", health.to_string())
            .env("AUTH_LIMIT", "1000000/second")
            .env("SCAN_LIMIT", "1000000/second")
            .env("CONNECTIONS_PER_ADDRESS", "10000")
            .env("ACCESS_TOKEN_EXPIRE_MINUTES", "60");
        let began = Instant::now();
        let mut child = Child::spawn(name, folder, command)?;
        while began.elapsed() < READY_WITHIN {
            if answers(address).await {
                return Ok(Self { address, started_in: began.elapsed(), child });
            }
            child.check()?;
            tokio::time::sleep(ASK_EVERY).await;
        }
        bail!("{name} did not answer in {} s:\n{}", READY_WITHIN.as_secs(), child.last_words())
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// E-mail and password of the demo's administrator, printed by the first `up` on fresh stores.
    pub(crate) fn administrator(&self) -> Result<(String, String)> {
        let output = self.child.output()?;
        administrator(&output).context("`up --demo` printed no administrator's password")
    }

    /// What there is to say when it fails.
    pub(crate) fn last_words(&self) -> String {
        format!("measuring failed; the server's log ended with\n{}\n", self.child.last_words())
    }

    /// Asks it to end; how long that took.
    pub(crate) async fn stop(self) -> Result<Duration> {
        self.child.stop().await
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(self) -> Result<()> {
        self.child.kill()
    }
}

fn data(folder: &Path) -> std::path::PathBuf {
    folder.join("data")
}

/// Whether it answers a query, and not only connections.
async fn answers(address: SocketAddr) -> bool {
    let Ok(mut connection) = Connection::open(address).await else { return false };
    let request = client::request(address, None, "{ __typename }", &Value::Null);
    connection.ask(&request).await.is_ok_and(|answer| answer.status == 200)
}

/// Free a moment ago: whoever takes one first makes the server say so and end.
fn free_addresses() -> Result<[SocketAddr; 2]> {
    // Both are held before either is given back, so they differ.
    let held = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    Ok([held[0].local_addr()?, held[1].local_addr()?])
}

fn administrator(output: &str) -> Option<(String, String)> {
    output.lines().find_map(|line| match line.split_ascii_whitespace().collect::<Vec<_>>()[..] {
        ["admin", email, password] => Some((email.to_owned(), password.to_owned())),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_administrator_is_found_in_the_greeting() {
        let greeting = "\nPasswords:\n\n  admin     a@b.c    x-y-z\n  viewer    v@b.c  q\n";
        assert_eq!(administrator(greeting), Some(("a@b.c".to_owned(), "x-y-z".to_owned())));
        assert_eq!(administrator("SentryOps is up"), None);
    }
}
