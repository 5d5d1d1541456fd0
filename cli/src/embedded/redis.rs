//! The private Redis or Valkey server, on a Unix socket. The data is not persisted, because it may be lost.
//!
//! When the memory is full, the server rejects writes instead of evicting a rate limit. The server reads its
//! configuration from standard input, so that the password appears on no command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

use super::child::{Child, Launcher};
use super::home::Home;
use super::log::Log;
use super::orphan::OrphanSearch;
use super::secret::Secrets;

const READY_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns the URL in the form of the crate `fred`, which requires a host name and ignores it.
pub(super) fn url(runtime: &Path, password: &str) -> String {
    format!("redis+unix://:{password}@local{}", socket(runtime).display())
}

/// Starts the server. [`wait_until_ready`] waits until the server accepts commands.
pub(super) async fn spawn(
    home: &Home,
    launcher: &Launcher,
    secrets: &Secrets,
    program: &Path,
) -> Result<Child> {
    let folder = folder_of(home, "redis");
    home.account.create_private_folder(&folder)?;
    let log = Log::create(&home.data.join("log"), "redis")?;
    let mut command = launcher.command(program, "TERM");
    command.arg("-").current_dir(&folder);
    let input = Some(configuration(&home.runtime, &secrets.redis));
    Child::spawn("redis", Signal::TERM, command, input, log).await
}

fn configuration(runtime: &Path, password: &str) -> String {
    let socket = socket(runtime);
    format!(
        "port 0
unixsocket {}
unixsocketperm 700
requirepass {password}
save \"\"
appendonly no
maxmemory 256mb
maxmemory-policy noeviction
daemonize no
loglevel warning
logfile \"\"
",
        socket.display()
    )
}

/// Waits until the server accepts the password and answers a `PING`.
pub(super) async fn wait_until_ready(
    home: &Home,
    secrets: &Secrets,
    child: &mut Child,
) -> Result<()> {
    let deadline = Instant::now() + READY_TIMEOUT;
    let mut pause = Duration::from_millis(2);
    loop {
        let result = timeout(Duration::from_secs(5), ping(&home.runtime, &secrets.redis)).await;
        if let Ok(Ok(reply)) = result {
            match reply.as_str() {
                "+OK\r\n+PONG\r\n" => return Ok(()),
                other => bail!("redis rejected AUTH or PING: {}", other.trim()),
            }
        }
        if Instant::now() > deadline {
            let seconds = READY_TIMEOUT.as_secs();
            bail!("redis does not respond after {seconds} s; {}", child.log.tail());
        }
        tokio::select! {
            exit_status = child.wait_for_exit() => bail!("redis did not start ({exit_status}); {}", child.log.tail()),
            () = sleep(pause) => pause = (pause * 2).min(Duration::from_millis(100)),
        }
    }
}

async fn ping(runtime: &Path, password: &str) -> Result<String> {
    let mut stream = UnixStream::connect(socket(runtime)).await?;
    stream.write_all(format!("AUTH {password}\r\nPING\r\n").as_bytes()).await?;
    let mut reply = String::new();
    let mut bytes = [0; 256];
    while reply.lines().count() < 2 && !reply.starts_with('-') {
        let count = stream.read(&mut bytes).await?;
        if count == 0 {
            bail!("the connection was closed");
        }
        reply.push_str(
            str::from_utf8(&bytes[..count]).context("redis sent an answer that is not UTF-8")?,
        );
    }
    Ok(reply)
}

/// Stops the server with TERM, or with KILL after the timeout.
pub(super) async fn stop(mut child: Child) -> Result<()> {
    child.stop(&[(Signal::TERM, STOP_TIMEOUT)]).await
}

/// Stops a server that an earlier run left.
pub(super) async fn stop_orphans(home: &Home) -> Result<()> {
    let (folder, socket) = (folder_of(home, "redis"), socket(&home.runtime));
    let search = OrphanSearch { folder: &folder, socket: &socket, uid: home.account.uid };
    search.stop(None, Signal::TERM, Signal::TERM).await?;
    search.check_no_listener().await
}

/// Returns the folder of a service below the data folder. The folder is the working directory of the service's
/// processes, by which `orphan` recognises them.
fn folder_of(home: &Home, service: &str) -> PathBuf {
    home.data.join(service)
}

fn socket(runtime: &Path) -> PathBuf {
    runtime.join("redis.sock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_names_password_and_socket() {
        assert_eq!(
            url(Path::new("/run/sentryops-01"), "pass_word-1"),
            "redis+unix://:pass_word-1@local/run/sentryops-01/redis.sock"
        );
    }

    #[test]
    fn redis_opens_no_port_and_keeps_nothing() {
        let text = configuration(Path::new("/run/x"), "secret");
        for line in ["port 0", "save \"\"", "appendonly no", "maxmemory-policy noeviction"] {
            assert!(text.lines().any(|found| found == line), "{line}");
        }
    }
}
