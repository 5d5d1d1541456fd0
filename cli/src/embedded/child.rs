//! A child process (Postgres, Redis or initdb): started, watched, stopped.
//!
//! A dedicated thread starts each child and waits for its exit. Linux can signal a child when the *thread* that started
//! the child ends. Therefore this thread must live exactly as long as the child, which a thread of the async runtime
//! does not guarantee. The signal is requested by `setpriv` of util-linux, because std cannot request it without
//! `unsafe`. `setpriv` also sets `no_new_privs`, so that the child cannot gain privileges with `exec`. Where `setpriv`
//! does not support both options (macOS, Alpine), children survive a `kill -9` of this process until the next start.
//! The thread waits without reaping the child and reaps it under a lock, so that a signal never reaches a reused pid.

use std::env;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child as Process, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use tracing::warn;

use super::account::Account;
use super::log::Log;
use super::program::parse_major;

/// Environment variables that a child inherits. Other variables may contain keys, or settings for another Postgres.
const INHERITED_ENV: [&str; 2] = ["PATH", "LD_LIBRARY_PATH"];
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// Starts child processes as the unprivileged user.
pub(super) struct Launcher {
    account: Account,
    setpriv: Option<PathBuf>,
}

impl Launcher {
    /// Creates a launcher, and tests whether `setpriv` works on this machine.
    pub(super) fn new(account: Account) -> Self {
        let mut launcher = Self { account, setpriv: None };
        let candidates = ["/usr/bin/setpriv", "/bin/setpriv"].map(PathBuf::from);
        launcher.setpriv = candidates.into_iter().find(|setpriv| {
            let mut attempt = launcher.base_command(setpriv);
            attempt.args(["--no-new-privs", "--pdeathsig", "KILL", "--", "/bin/sh", "-c", ":"]);
            attempt.stdout(Stdio::null()).stderr(Stdio::null());
            attempt.status().is_ok_and(|status| status.success())
        });
        launcher
    }

    /// Returns a command that runs as the unprivileged user. Linux sends the signal `death_signal` to the child when
    /// this process ends.
    pub(super) fn command(&self, program: &Path, death_signal: &str) -> Command {
        match &self.setpriv {
            Some(setpriv) => {
                let mut command = self.base_command(setpriv);
                command.args(["--no-new-privs", "--pdeathsig", death_signal, "--"]).arg(program);
                command
            }
            None => self.base_command(program),
        }
    }

    /// Returns the major version of a `postgres` program; `None` if the program does not run.
    pub(super) fn major_of(&self, postgres: &Path) -> Option<u32> {
        let output =
            self.base_command(postgres).arg("--version").stderr(Stdio::null()).output().ok()?;
        parse_major(&String::from_utf8_lossy(&output.stdout))
    }

    fn base_command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let inherited = INHERITED_ENV.iter().filter_map(|name| Some((name, env::var_os(name)?)));
        command.env_clear().envs(inherited).env("LC_ALL", "C");
        command.current_dir("/").process_group(0).stdin(Stdio::null());
        self.account.apply_to(&mut command);
        command
    }
}

/// A running child process. Dropping the value sends the signal for a graceful shutdown, without waiting.
pub(super) struct Child {
    pub(super) name: &'static str,
    pub(super) log: Log,
    signal_handle: SignalHandle,
    status: watch::Receiver<Option<ExitStatus>>,
}

impl Child {
    /// Starts a command that writes its output to a log. `stop_signal` is the signal for a graceful shutdown.
    pub(super) async fn spawn(
        name: &'static str,
        stop_signal: Signal,
        mut command: Command,
        input: Option<String>,
        log: Log,
    ) -> Result<Self> {
        command.stdout(log.output()?).stderr(log.output()?);
        if input.is_some() {
            command.stdin(Stdio::piped());
        }
        let (started, has_started) = oneshot::channel();
        let (ended, status) = watch::channel(None);
        thread::Builder::new()
            .name(format!("keeper-{name}"))
            .spawn(move || start_and_wait(command, input, stop_signal, started, &ended))
            .with_context(|| format!("cannot start a thread for {name}"))?;
        let signal_handle = has_started
            .await
            .with_context(|| format!("the thread that starts {name} has ended"))?
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name, log, signal_handle, status })
    }

    /// Waits until the child has ended, and returns its exit status as text, e.g. `exit status: 1`.
    pub(super) async fn wait_for_exit(&mut self) -> String {
        let status = self.status().await;
        status.map_or_else(|| "exit status unknown".to_owned(), |status| status.to_string())
    }

    /// Waits until the child has ended, and returns its exit status; `None` if the status is unknown.
    pub(super) async fn status(&mut self) -> Option<ExitStatus> {
        // An error means that the thread has ended, and the thread never ends before the child.
        self.status.wait_for(Option::is_some).await.ok().and_then(|status| *status)
    }

    /// Sends the signals one after the other, each with its own timeout, until the child has ended. The last signal is
    /// `KILL`.
    ///
    /// # Errors
    /// If the child has not ended after `KILL`.
    pub(super) async fn stop(&mut self, signals: &[(Signal, Duration)]) -> Result<()> {
        for (signal, time_limit) in signals.iter().chain(&[(Signal::KILL, KILL_TIMEOUT)]) {
            self.signal_handle.signal(*signal);
            if timeout(*time_limit, self.status()).await.is_ok() {
                return Ok(());
            }
            warn!("{} has not ended {} s after a signal to stop", self.name, time_limit.as_secs());
        }
        bail!("{} does not end, not even after SIGKILL", self.name)
    }
}

/// Handle that signals a process only while its pid is valid. Dropping the handle sends the signal for a graceful
/// shutdown, also if the start of the [`Child`] was cancelled.
struct SignalHandle {
    stop_signal: Signal,
    process: Arc<Mutex<Option<Process>>>,
}

impl SignalHandle {
    fn signal(&self, signal: Signal) {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(process) = &*process
            && let Err(error) = kill_process(Pid::from_child(process), signal)
            && error != Errno::SRCH
        {
            warn!("cannot signal process {}: {error}", process.id());
        }
    }
}

impl Drop for SignalHandle {
    fn drop(&mut self) {
        self.signal(self.stop_signal);
    }
}

/// Starts a child and waits for its exit. Runs on a thread that lives exactly as long as the child.
fn start_and_wait(
    mut command: Command,
    input: Option<String>,
    stop_signal: Signal,
    started: oneshot::Sender<io::Result<SignalHandle>>,
    ended: &watch::Sender<Option<ExitStatus>>,
) {
    let mut process = match command.spawn() {
        Ok(process) => process,
        Err(error) => {
            // Fails only if the start was cancelled; then the error is not needed.
            let _ = started.send(Err(error));
            return;
        }
    };
    let pid = Pid::from_child(&process);
    if let (Some(mut stdin), Some(input)) = (process.stdin.take(), input) {
        // Fails if the child ends before it has read its input; the log of the child contains the reason.
        let _ = stdin.write_all(input.as_bytes());
    }
    let process = Arc::new(Mutex::new(Some(process)));
    // If the start was cancelled, the handle is dropped here, which stops the process.
    let _ = started.send(Ok(SignalHandle { stop_signal, process: Arc::clone(&process) }));
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while let Err(Errno::INTR) = waitid(WaitId::Pid(pid), options) {}
    let mut process = process.lock().unwrap_or_else(PoisonError::into_inner);
    let status = process.take().and_then(|mut process| process.wait().ok());
    drop(process);
    ended.send_replace(status);
}
