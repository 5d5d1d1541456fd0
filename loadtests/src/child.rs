//! A process that we start: in a group of its own, so that Ctrl-C reaches only us, and ended when dropped.

use std::{
    fs::{self, OpenOptions},
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{self, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// Longer than `up` may take for its private services.
const STOP_WITHIN: Duration = Duration::from_mins(1);
const POLL_EVERY: Duration = Duration::from_millis(5);
/// What reaches a child of our own environment: the rest would make runs differ.
const INHERITED: [&str; 5] = ["PATH", "HOME", "TMPDIR", "LANG", "LD_LIBRARY_PATH"];

/// A command that sees little of our environment.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    command.envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command
}

/// A running process.
pub(crate) struct Child {
    name: String,
    process: process::Child,
    output: PathBuf,
    log: PathBuf,
}

impl Child {
    /// Starts it; what it says goes to files in this folder.
    pub(crate) fn spawn(name: &str, folder: &Path, mut command: Command) -> Result<Self> {
        let (output, log) =
            (folder.join(format!("{name}.out")), folder.join(format!("{name}.log")));
        // Passwords of the demo are among the output.
        let open = |path| OpenOptions::new().create(true).append(true).mode(0o600).open(path);
        command.stdin(Stdio::null()).stdout(open(&output)?).stderr(open(&log)?).process_group(0);
        let program = command.get_program().display().to_string();
        let process = command.spawn().with_context(|| format!("{program} cannot be run"))?;
        Ok(Self { name: name.to_owned(), process, output, log })
    }

    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What it has written to standard output.
    pub(crate) fn output(&self) -> Result<String> {
        fs::read_to_string(&self.output).with_context(|| format!("read {}", self.output.display()))
    }

    /// Fails if it is over, with the end of its log.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.process.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}):\n{}", self.name, self.last_words()),
        }
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Asks it to end, as an operator would, and waits; how long it took.
    ///
    /// # Errors
    /// When it did not end in time or not with success; it is gone nevertheless.
    pub(crate) async fn stop(mut self) -> Result<Duration> {
        let began = Instant::now();
        self.terminate()?;
        // Others of our tasks may have to serve it until it is gone, so this does not block.
        while self.process.try_wait()?.is_none() && began.elapsed() < STOP_WITHIN {
            tokio::time::sleep(POLL_EVERY).await;
        }
        let took = began.elapsed();
        let status = self.end()?;
        ensure!(status.success(), "{} stopped badly ({status}):\n{}", self.name, self.last_words());
        Ok(took)
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.end().map(drop)
    }

    /// Whether it is still there.
    pub(crate) fn is_running(&mut self) -> Result<bool> {
        Ok(self.process.try_wait()?.is_none())
    }

    /// Sends it a signal, if it is still there.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.is_running()? {
            // Not waited for yet, so the number is still its own.
            kill_process(Pid::from_child(&self.process), signal)?;
        }
        Ok(())
    }

    fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    fn end(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.process.try_wait()? {
            return Ok(status);
        }
        kill_process_group(Pid::from_child(&self.process), Signal::KILL)?;
        Ok(self.process.wait()?)
    }

    fn stop_blocking(&mut self) -> Result<()> {
        self.terminate()?;
        let deadline = Instant::now() + STOP_WITHIN;
        while self.process.try_wait()?.is_none() && Instant::now() < deadline {
            thread::sleep(POLL_EVERY);
        }
        self.end()?;
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Err(error) = self.stop_blocking() {
            eprintln!("loadtests: {} could not be ended: {error:#}", self.name);
        }
    }
}
