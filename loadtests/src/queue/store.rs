//! The stores, i.e. the Postgres and Redis processes, which are crashed and restarted with the same arguments.
//!
//! `sentryops services` has started the processes, but does not react when they exit. A restarted process is a child of
//! this program.

use std::{
    fs,
    os::unix::{
        fs::MetadataExt,
        process::{CommandExt, parent_id},
    },
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{child, usage};

const EXIT_TIMEOUT: Duration = Duration::from_secs(30);
const POLL_EVERY: Duration = Duration::from_millis(5);

/// A Postgres or Redis process, started by `sentryops services` or restarted by this program.
pub(crate) struct Store {
    pid: u32,
    program: PathBuf,
    folder: PathBuf,
    arguments: Vec<String>,
    input: Option<String>,
    owner: (u32, u32),
    restarted: Option<std::process::Child>,
}

impl Store {
    /// Returns the Postgres process that `sentryops services` started.
    pub(crate) fn postgres() -> Result<Self> {
        let mut store = Self::named("postgres")?;
        let line = fs::read(format!("/proc/{}/cmdline", store.pid))?;
        let words = line.split(|byte| *byte == 0).filter(|word| !word.is_empty());
        store.arguments = words
            .skip(1)
            .map(|word| Ok(String::from_utf8(word.to_vec())?))
            .collect::<Result<_>>()?;
        Ok(store)
    }

    /// Returns the Redis process that `sentryops services` started; `url` is its address.
    pub(crate) fn redis(url: &str) -> Result<Self> {
        let mut store = Self::named("redis-server").or_else(|_| Self::named("valkey-server"))?;
        let (password, socket) =
            redis_address(url).context("the Redis URL is not that of a private Redis")?;
        // Redis reads its configuration from standard input, so the configuration must be sent again on a restart.
        store.input = Some(format!(
            "port 0\nunixsocket {socket}\nunixsocketperm 700\nrequirepass {password}\nsave \"\"\nappendonly no\n"
        ));
        store.arguments = vec!["-".to_owned()];
        Ok(store)
    }

    fn named(name: &str) -> Result<Self> {
        let pid = usage::child_named(parent_id(), name)?;
        let of = |what: &str| format!("/proc/{pid}/{what}");
        let owner = fs::metadata(format!("/proc/{pid}"))?;
        Ok(Self {
            pid,
            program: fs::read_link(of("exe")).context("read the executable path of a store")?,
            folder: fs::read_link(of("cwd")).context("read the working folder of a store")?,
            arguments: Vec::new(),
            input: None,
            owner: (owner.uid(), owner.gid()),
            restarted: None,
        })
    }

    /// Sends a signal to the process.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        Ok(kill_process(pid.context("the process id is not valid")?, signal)?)
    }

    /// Sends a signal that ends the process, and waits until it has exited.
    pub(crate) async fn crash(&mut self, signal: Signal) -> Result<()> {
        self.signal(signal)?;
        let deadline = Instant::now() + EXIT_TIMEOUT;
        while self.is_running()? {
            ensure!(Instant::now() < deadline, "process {} did not exit in time", self.pid);
            tokio::time::sleep(POLL_EVERY).await;
        }
        Ok(())
    }

    fn is_running(&mut self) -> Result<bool> {
        match &mut self.restarted {
            Some(process) => Ok(process.try_wait()?.is_none()),
            // `sentryops services` reaps the process when it exits, so its folder in `/proc` then disappears.
            None => Ok(fs::exists(format!("/proc/{}", self.pid))?),
        }
    }

    /// Restarts the process with the same arguments, folder and user.
    pub(crate) fn start(&mut self) -> Result<()> {
        let mut command: Command = child::command(&self.program);
        command.args(&self.arguments).current_dir(&self.folder).env("LC_ALL", "C").process_group(0);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.stdin(if self.input.is_some() { Stdio::piped() } else { Stdio::null() });
        if self.owner.0 != rustix::process::geteuid().as_raw() {
            command.uid(self.owner.0).gid(self.owner.1);
        }
        let mut process =
            command.spawn().with_context(|| format!("start {}", self.program.display()))?;
        if let (Some(mut input), Some(text)) = (process.stdin.take(), &self.input) {
            std::io::Write::write_all(&mut input, text.as_bytes())?;
        }
        self.pid = process.id();
        self.restarted = Some(process);
        Ok(())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(mut process) = self.restarted.take() {
            // Errors are ignored, because `sentryops services` finds remaining processes by their folder and stops
            // them.
            let _ = kill_process(Pid::from_child(&process), Signal::INT);
            let _ = process.wait();
        }
    }
}

/// Splits the URL of a private Redis into the password and the path of its socket; `None` for other URLs.
pub(crate) fn redis_address(url: &str) -> Option<(&str, &str)> {
    let (password, rest) = url.strip_prefix("redis+unix://:")?.split_once('@')?;
    Some((password, &rest[rest.find('/')?..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_private_redis_is_taken_apart() {
        let check = |url, expected| assert_eq!(redis_address(url), expected);
        check("redis+unix://:pass-1@local/run/x/redis.sock", Some(("pass-1", "/run/x/redis.sock")));
        check("redis://localhost:6379", None);
    }
}
