//! A child process: started, watched, stopped.
//!
//! A dedicated thread starts each child and waits for it. Linux can signal a child when the *thread* that started it
//! dies, so that thread must live exactly as long as the child, which a worker of the runtime does not guarantee.
//! `setpriv` of util-linux requests the signal, because std cannot without `unsafe`. It also sets `no_new_privs`, so
//! that the child cannot gain privileges with `exec`. Where `setpriv` cannot do both (macOS, Alpine), children outlive
//! a `kill -9` of us until the next start. The thread waits without reaping and reaps under a lock, so a signal never
//! goes to a reused pid.

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

/// Environment variables that a child inherits. The others may be keys, or settings meant for another Postgres.
const INHERITED_ENV: [&str; 2] = ["PATH", "LD_LIBRARY_PATH"];
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// Starts children on this machine, as the right user.
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
            let mut attempt = launcher.dressed(setpriv);
            attempt.args(["--no-new-privs", "--pdeathsig", "KILL", "--", "/bin/sh", "-c", ":"]);
            attempt.stdout(Stdio::null()).stderr(Stdio::null());
            attempt.status().is_ok_and(|status| status.success())
        });
        launcher
    }

    /// Returns a command that runs as the unprivileged user. Linux sends it the signal `when_we_die` when we die.
    pub(super) fn command(&self, program: &Path, when_we_die: &str) -> Command {
        match &self.setpriv {
            Some(setpriv) => {
                let mut command = self.dressed(setpriv);
                command.args(["--no-new-privs", "--pdeathsig", when_we_die, "--"]).arg(program);
                command
            }
            None => self.dressed(program),
        }
    }

    /// Returns the major version of a `postgres` program; `None` if it does not run.
    pub(super) fn major_of(&self, postgres: &Path) -> Option<u32> {
        let said = self.dressed(postgres).arg("--version").stderr(Stdio::null()).output().ok()?;
        parse_major(&String::from_utf8_lossy(&said.stdout))
    }

    fn dressed(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let passed_on = INHERITED_ENV.iter().filter_map(|name| Some((name, env::var_os(name)?)));
        command.env_clear().envs(passed_on).env("LC_ALL", "C");
        command.current_dir("/").process_group(0).stdin(Stdio::null());
        self.account.dress(&mut command);
        command
    }
}

/// A running child process. Dropping it sends the signal for an orderly end, without waiting.
pub(super) struct Child {
    pub(super) name: &'static str,
    pub(super) log: Log,
    grip: SignalHandle,
    status: watch::Receiver<Option<ExitStatus>>,
}

impl Child {
    /// Starts a command that writes its output to a log. `ask` is the signal for an orderly end.
    pub(super) async fn spawn(
        name: &'static str,
        ask: Signal,
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
            .spawn(move || keep(command, input, ask, started, &ended))
            .with_context(|| format!("cannot start a thread for {name}"))?;
        let grip = has_started
            .await
            .with_context(|| format!("the thread that starts {name} has ended"))?
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name, log, grip, status })
    }

    /// Waits until the child has ended, and returns how, e.g. `exit status: 1`.
    pub(super) async fn ended(&mut self) -> String {
        let status = self.status().await;
        status.map_or_else(|| "exit status unknown".to_owned(), |status| status.to_string())
    }

    /// Waits until the child has ended. `None` if the exit status is unknown.
    pub(super) async fn status(&mut self) -> Option<ExitStatus> {
        // An error means that the thread is gone, and then the child has ended too.
        self.status.wait_for(Option::is_some).await.ok().and_then(|status| *status)
    }

    /// Sends the signals in turn, each with its own time limit, until the child has ended; `KILL` comes last.
    ///
    /// # Errors
    /// If the child has not ended after `KILL` either.
    pub(super) async fn end(&mut self, asked: &[(Signal, Duration)]) -> Result<()> {
        for (signal, patience) in asked.iter().chain(&[(Signal::KILL, KILL_TIMEOUT)]) {
            self.grip.signal(*signal);
            if timeout(*patience, self.status()).await.is_ok() {
                return Ok(());
            }
            warn!("{} has not ended {} s after a signal to stop", self.name, patience.as_secs());
        }
        bail!("{} does not end, not even after SIGKILL", self.name)
    }
}

/// Handle that signals a process only while its pid is not reused. Dropping it sends the signal for an orderly end,
/// also if the start of its [`Child`] was cancelled.
struct SignalHandle {
    ask: Signal,
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
        self.signal(self.ask);
    }
}

/// Starts a child and waits for it, on a thread that lives exactly as long as the child.
fn keep(
    mut command: Command,
    input: Option<String>,
    ask: Signal,
    started: oneshot::Sender<io::Result<SignalHandle>>,
    ended: &watch::Sender<Option<ExitStatus>>,
) {
    let mut process = match command.spawn() {
        Ok(process) => process,
        Err(error) => {
            // Fails only if the start was cancelled; then no receiver needs the error.
            let _ = started.send(Err(error));
            return;
        }
    };
    let pid = Pid::from_child(&process);
    if let (Some(mut stdin), Some(input)) = (process.stdin.take(), input) {
        // Fails if the child ends before it reads; its log contains the reason.
        let _ = stdin.write_all(input.as_bytes());
    }
    let process = Arc::new(Mutex::new(Some(process)));
    // If the start was cancelled, the grip is dropped here, which stops the process.
    let _ = started.send(Ok(SignalHandle { ask, process: Arc::clone(&process) }));
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while let Err(Errno::INTR) = waitid(WaitId::Pid(pid), options) {}
    let mut process = process.lock().unwrap_or_else(PoisonError::into_inner);
    let status = process.take().and_then(|mut process| process.wait().ok());
    drop(process);
    ended.send_replace(status);
}
