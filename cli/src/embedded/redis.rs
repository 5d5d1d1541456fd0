//! Redis or Valkey on a Unix socket, not persisted, because it holds nothing that must survive. When its memory is
//! full, it rejects writes instead of evicting a rate limit. It reads its configuration from standard input, so the
//! password appears on no command line.

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

const READY_WITHIN: Duration = Duration::from_secs(30);
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// Returns the URL as the crate `fred` parses it; `fred` requires a host and ignores it.
pub(super) fn url(runtime: &Path, password: &str) -> String {
    format!("redis+unix://:{password}@local{}", socket(runtime).display())
}

/// Starts the server. [`ready`] waits until it accepts commands.
pub(super) async fn spawn(
    home: &Home,
    launcher: &Launcher,
    secrets: &Secrets,
    program: &Path,
) -> Result<Child> {
    let folder = folder_of(home, "redis");
    home.account.create_private_folder(&folder)?;
    let log = Log::begin(&home.data.join("log"), "redis")?;
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

/// Waits until the server accepts the password and a `PING`.
pub(super) async fn ready(home: &Home, secrets: &Secrets, child: &mut Child) -> Result<()> {
    let deadline = Instant::now() + READY_WITHIN;
    let mut pause = Duration::from_millis(2);
    loop {
        let asked = timeout(Duration::from_secs(5), ask(&home.runtime, &secrets.redis)).await;
        if let Ok(Ok(answer)) = asked {
            match answer.as_str() {
                "+OK\r\n+PONG\r\n" => return Ok(()),
                other => bail!("redis rejected AUTH or PING: {}", other.trim()),
            }
        }
        if Instant::now() > deadline {
            let seconds = READY_WITHIN.as_secs();
            bail!("redis does not respond after {seconds} s; {}", child.log.tail());
        }
        tokio::select! {
            how = child.ended() => bail!("redis did not start ({how}); {}", child.log.tail()),
            () = sleep(pause) => pause = (pause * 2).min(Duration::from_millis(100)),
        }
    }
}

async fn ask(runtime: &Path, password: &str) -> Result<String> {
    let mut stream = UnixStream::connect(socket(runtime)).await?;
    stream.write_all(format!("AUTH {password}\r\nPING\r\n").as_bytes()).await?;
    let mut answer = String::new();
    let mut bytes = [0; 256];
    while answer.lines().count() < 2 && !answer.starts_with('-') {
        let count = stream.read(&mut bytes).await?;
        if count == 0 {
            bail!("the connection was closed");
        }
        answer.push_str(
            str::from_utf8(&bytes[..count]).context("redis sent an answer that is not UTF-8")?,
        );
    }
    Ok(answer)
}

/// Stops the server within its time limit.
pub(super) async fn stop(mut child: Child) -> Result<()> {
    child.end(&[(Signal::TERM, STOP_WITHIN)]).await
}

/// Stops a server that an earlier run left.
pub(super) async fn end_orphans(home: &Home) -> Result<()> {
    let (folder, socket) = (folder_of(home, "redis"), socket(&home.runtime));
    let traces = OrphanSearch { folder: &folder, socket: &socket, uid: home.account.uid };
    traces.end(None, Signal::TERM, Signal::TERM).await?;
    traces.nobody_listens().await
}

/// Returns the folder of a service below the data folder. It is the working directory of the service's processes, by
/// which they are recognised later.
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
