//! A child process, which is stopped when dropped. It has a process group of its own, so that Ctrl-C reaches only this
//! program.

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

/// Timeout for a stop. Longer than `sentryops up` needs to stop its private Postgres and Redis.
const STOP_WITHIN: Duration = Duration::from_mins(1);
const POLL_EVERY: Duration = Duration::from_millis(5);
/// Environment variables that child processes inherit. All others are removed, because they could change the results.
const INHERITED: [&str; 5] = ["PATH", "HOME", "TMPDIR", "LANG", "LD_LIBRARY_PATH"];

/// Returns a command that inherits only the environment variables in [`INHERITED`].
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    command.envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command
}

/// A child process with its output and log files.
pub(crate) struct Child {
    name: String,
    process: process::Child,
    output: PathBuf,
    log: PathBuf,
}

impl Child {
    /// Starts the process. Its standard output and error are appended to `NAME.out` and `NAME.log` in `folder`.
    pub(crate) fn spawn(name: &str, folder: &Path, mut command: Command) -> Result<Self> {
        let (output, log) =
            (folder.join(format!("{name}.out")), folder.join(format!("{name}.log")));
        // Readable by the owner only, because the output contains the demo's passwords.
        let open = |path| OpenOptions::new().create(true).append(true).mode(0o600).open(path);
        command.stdin(Stdio::null()).stdout(open(&output)?).stderr(open(&log)?).process_group(0);
        let program = command.get_program().display().to_string();
        let process = command.spawn().with_context(|| format!("cannot run {program}"))?;
        Ok(Self { name: name.to_owned(), process, output, log })
    }

    /// Returns the process id of the child.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Returns the text that the process has written to standard output so far.
    pub(crate) fn output(&self) -> Result<String> {
        fs::read_to_string(&self.output).with_context(|| format!("read {}", self.output.display()))
    }

    /// Checks that the process is running.
    ///
    /// # Errors
    /// Fails with the end of the log if the process has exited.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.process.try_wait()? {
            None => Ok(()),
            Some(status) => bail!(
                "{} exited unexpectedly ({status}); its log ends with:\n{}",
                self.name,
                self.log_tail()
            ),
        }
    }

    /// Returns the last 15 lines of the log.
    pub(crate) fn log_tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Stops the process with SIGTERM, waits until it has exited, and returns the time from signal to exit.
    ///
    /// # Errors
    /// Fails if the process did not exit within a minute, or exited with an error. After the timeout, kills the process
    /// group.
    pub(crate) async fn stop(mut self) -> Result<Duration> {
        let began = Instant::now();
        self.terminate()?;
        // Must not block the thread: until the process exits, it may depend on other tasks of this program, such as the
        // counting proxy.
        while self.process.try_wait()?.is_none() && began.elapsed() < STOP_WITHIN {
            tokio::time::sleep(POLL_EVERY).await;
        }
        let took = began.elapsed();
        let status = self.end()?;
        ensure!(
            status.success(),
            "{} did not stop cleanly ({status}); its log ends with:\n{}",
            self.name,
            self.log_tail()
        );
        Ok(took)
    }

    /// Kills the process group with SIGKILL, as after a power failure.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.end().map(drop)
    }

    /// Returns true while the process has not exited.
    pub(crate) fn is_running(&mut self) -> Result<bool> {
        Ok(self.process.try_wait()?.is_none())
    }

    /// Sends a signal to the process if it is still running.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.is_running()? {
            // The process has not been reaped yet, so its id cannot have been reused.
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
            eprintln!("loadtests: cannot stop {}: {error:#}", self.name);
        }
    }
}
