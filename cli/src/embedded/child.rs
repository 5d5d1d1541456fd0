//! A process of ours: started, watched, ended.
//!
//! A thread of its own starts each child and waits for it. Linux can send a child a signal when the *thread* that started it
//! dies, so that thread must live exactly as long as the child; a runtime's worker does not promise that. The signal is asked
//! for by `setpriv` of util-linux (std offers no way without `unsafe`), which also takes from the child the means to gain
//! privileges by executing something. Where there is no such `setpriv` (macOS, Alpine), children outlive a `kill -9` of us
//! until the next start. We wait without reaping and reap under a lock, so a signal never goes to a number that has passed on.

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

/// Of our environment a child sees only this: the rest holds keys, or settings meant for another Postgres.
const PASSED_ON: [&str; 2] = ["PATH", "LD_LIBRARY_PATH"];
const AFTER_KILL: Duration = Duration::from_secs(5);

/// How children are started here.
pub(super) struct Launcher {
    account: Account,
    setpriv: Option<PathBuf>,
}

impl Launcher {
    /// Learns what this machine can do.
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

    /// A command that runs as the unprivileged user; Linux sends it a signal when we die.
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

    /// The major version of a `postgres`; `None` if it does not run.
    pub(super) fn major_of(&self, postgres: &Path) -> Option<u32> {
        let said = self.dressed(postgres).arg("--version").stderr(Stdio::null()).output().ok()?;
        parse_major(&String::from_utf8_lossy(&said.stdout))
    }

    fn dressed(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let passed_on = PASSED_ON.iter().filter_map(|name| Some((name, env::var_os(name)?)));
        command.env_clear().envs(passed_on).env("LC_ALL", "C");
        command.current_dir("/").process_group(0).stdin(Stdio::null());
        self.account.dress(&mut command);
        command
    }
}

/// A running child. Dropping it asks it to end.
pub(super) struct Child {
    pub(super) name: &'static str,
    pub(super) log: Log,
    grip: Grip,
    status: watch::Receiver<Option<ExitStatus>>,
}

impl Child {
    /// Starts a command whose output goes to a log. `ask` is the signal that ends it in order.
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
            .with_context(|| format!("start a thread for {name}"))?;
        let grip = has_started
            .await
            .with_context(|| format!("the thread that keeps {name} has ended"))?
            .with_context(|| format!("start {name}"))?;
        Ok(Self { name, log, grip, status })
    }

    /// Resolves when the child has ended, with how: `exit status: 1`.
    pub(super) async fn ended(&mut self) -> String {
        let status = self.status().await;
        status.map_or_else(|| "nobody saw how".to_owned(), |status| status.to_string())
    }

    /// Resolves when the child has ended.
    pub(super) async fn status(&mut self) -> Option<ExitStatus> {
        // An error means that the keeper is gone, and then so is the child.
        self.status.wait_for(Option::is_some).await.ok().and_then(|status| *status)
    }

    /// Sends one signal after the other, each with its time, until the child has ended; `KILL` comes last.
    ///
    /// # Errors
    /// When not even that ends it.
    pub(super) async fn end(&mut self, asked: &[(Signal, Duration)]) -> Result<()> {
        for (signal, patience) in asked.iter().chain(&[(Signal::KILL, AFTER_KILL)]) {
            self.grip.signal(*signal);
            if timeout(*patience, self.status()).await.is_ok() {
                return Ok(());
            }
            warn!("{} has not ended {} s after being told to", self.name, patience.as_secs());
        }
        bail!("{} does not end", self.name)
    }
}

/// What signals a process for as long as its number is its own. Dropping it asks the process to end, wherever the start of
/// its [`Child`] was given up.
struct Grip {
    ask: Signal,
    process: Arc<Mutex<Option<Process>>>,
}

impl Grip {
    fn signal(&self, signal: Signal) {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(process) = &*process
            && let Err(error) = kill_process(Pid::from_child(process), signal)
            && error != Errno::SRCH
        {
            warn!("process {} cannot be signalled: {error}", process.id());
        }
    }
}

impl Drop for Grip {
    fn drop(&mut self) {
        self.signal(self.ask);
    }
}

/// Starts a child and waits for it, on a thread that lives exactly as long.
fn keep(
    mut command: Command,
    input: Option<String>,
    ask: Signal,
    started: oneshot::Sender<io::Result<Grip>>,
    ended: &watch::Sender<Option<ExitStatus>>,
) {
    let mut process = match command.spawn() {
        Ok(process) => process,
        Err(error) => {
            // Nobody listens if the start was given up: then there is nobody to tell.
            let _ = started.send(Err(error));
            return;
        }
    };
    let pid = Pid::from_child(&process);
    if let (Some(mut stdin), Some(input)) = (process.stdin.take(), input) {
        // A child that ends before it has read says why in its log.
        let _ = stdin.write_all(input.as_bytes());
    }
    let process = Arc::new(Mutex::new(Some(process)));
    // If nobody listens, the grip is dropped, and that ends the process.
    let _ = started.send(Ok(Grip { ask, process: Arc::clone(&process) }));
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while let Err(Errno::INTR) = waitid(WaitId::Pid(pid), options) {}
    let mut process = process.lock().unwrap_or_else(PoisonError::into_inner);
    let status = process.take().and_then(|mut process| process.wait().ok());
    drop(process);
    ended.send_replace(status);
}
