//! The server under load: the sentryops binary, started with the commands that an operator uses.

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
const POLL_EVERY: Duration = Duration::from_millis(2);
/// Environment variables for the secret keys that `sentryops up` creates, with the paths of the keys relative to the
/// data folder.
const KEYS: [(&str, &str); 2] =
    [("JWT_KEYS_FILE", "secrets/jwt_keys"), ("ENCRYPTION_KEYS_FILE", "secrets/encryption_keys")];

/// A server process that is ready for requests.
pub(crate) struct Server {
    /// Address on which the server listens.
    pub(crate) address: SocketAddr,
    /// Time from the start of the process to the first response.
    pub(crate) startup_time: Duration,
    child: Child,
}

impl Server {
    /// Starts `sentryops up --demo` with data and logs in `folder`, on `stores`. Without `stores`, the server starts
    /// private ones.
    pub(crate) async fn up(binary: &Path, folder: &Path, stores: Option<&Stores>) -> Result<Self> {
        let mut command = child::command(binary);
        command.args(["up", "--demo"]);
        if let Some(stores) = stores {
            command.env("DATABASE_URL", &stores.database).env("REDIS_URL", &stores.redis);
            command.env("DATABASE_OWNER_URL", &stores.owner);
        }
        Self::start("up", folder, command).await
    }

    /// Starts `sentryops api` with the secret keys that `up` created in `folder`. The server connects to Postgres at
    /// `database` and to the Redis of `stores`.
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

    /// Returns the command of a `sentryops worker` for the given queues, on `stores` and with the secret keys that `up`
    /// created in `folder`.
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
            .env("REQUEST_LIMIT", "1000000/second")
            .env("ADDRESS_LIMIT", "1000000/second")
            .env("SCAN_LIMIT", "1000000/second")
            .env("CONNECTIONS_PER_ADDRESS", "10000")
            .env("ACCESS_TOKEN_EXPIRE_MINUTES", "60");
        let began = Instant::now();
        let mut child = Child::spawn(name, folder, command)?;
        while began.elapsed() < READY_WITHIN {
            if is_ready(address).await {
                return Ok(Self { address, startup_time: began.elapsed(), child });
            }
            child.check()?;
            tokio::time::sleep(POLL_EVERY).await;
        }
        bail!(
            "{name} did not respond within {} s; its log ends with:\n{}",
            READY_WITHIN.as_secs(),
            child.log_tail()
        )
    }

    /// Returns the process id of the server.
    pub(crate) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Returns the e-mail and password of the demo's administrator. `up --demo` prints both if the stores were empty.
    pub(crate) fn administrator(&self) -> Result<(String, String)> {
        let output = self.child.output()?;
        administrator(&output).context("`up --demo` did not print the administrator's password")
    }

    /// Returns the error context of a failed measurement: the end of the server's log.
    pub(crate) fn log_tail(&self) -> String {
        format!("the measurement failed; the server's log ends with:\n{}\n", self.child.log_tail())
    }

    /// Stops the server with SIGTERM and returns the time until it exited.
    pub(crate) async fn stop(self) -> Result<Duration> {
        self.child.stop().await
    }

    /// Kills the server's process group with SIGKILL, as after a power failure.
    pub(crate) fn kill(self) -> Result<()> {
        self.child.kill()
    }
}

fn data(folder: &Path) -> std::path::PathBuf {
    folder.join("data")
}

/// Returns true if the server responds to a query.
async fn is_ready(address: SocketAddr) -> bool {
    let Ok(mut connection) = Connection::open(address).await else { return false };
    let request = client::request(address, None, "{ __typename }", &Value::Null);
    connection.send(&request).await.is_ok_and(|response| response.status == 200)
}

/// Returns two addresses with different free ports. If another process binds one of them before the server does, the
/// server logs an error and exits.
fn free_addresses() -> Result<[SocketAddr; 2]> {
    // Both listeners are bound before either is dropped, so the ports differ.
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
