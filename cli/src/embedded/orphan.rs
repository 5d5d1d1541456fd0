//! Orphans: service processes that an earlier run left on a data folder.
//!
//! The search runs while this process holds the lock of the data folder. Any service on the folder is therefore an
//! orphan, because the sentryops process that started it has ended. A pid file proves nothing, because the pid may be
//! reused. A process is an orphan if its working directory **is** the folder of the service (same device and inode) and
//! if it has the name of a service. Without `/proc` (macOS), the orphan is the process that the kernel reports as the
//! peer of the socket.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};
use tracing::info;

/// Maximum time from the first signal to the end of an orphan; then the orphan is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Process names of the children. `setpriv` is included, because it starts the service with `exec`.
const PROCESS_NAMES: [&str; 6] =
    ["postgres", "postmaster", "initdb", "redis-server", "valkey-server", "setpriv"];

/// Properties that identify the orphans of a service.
pub(super) struct OrphanSearch<'a> {
    /// Working directory of the service's processes.
    pub(super) folder: &'a Path,
    /// Socket on which the service listens.
    pub(super) socket: &'a Path,
    /// Uid of the service's processes.
    pub(super) uid: u32,
}

impl OrphanSearch<'_> {
    /// Returns the orphans by ascending pid. An orphan that only the socket identifies comes last.
    pub(super) async fn find(&self) -> Vec<Pid> {
        let mut orphans = self.in_folder();
        if let Some(pid) = self.listener().await
            && !orphans.contains(&pid)
        {
            orphans.push(pid);
        }
        orphans
    }

    /// Stops the orphans by a signal, and kills those that do not end in time. If `leader` is one of the orphans, only
    /// `leader` gets the signal `leader_signal`, because it shuts down the other processes. Otherwise all get the
    /// signal `others`.
    pub(super) async fn stop(
        &self,
        leader: Option<Pid>,
        leader_signal: Signal,
        others: Signal,
    ) -> Result<()> {
        let orphans = self.find().await;
        if orphans.is_empty() {
            return Ok(());
        }
        info!(
            folder = %self.folder.display(),
            processes = orphans.len(),
            "processes of an earlier run are still running on {}: stopping them first",
            self.folder.display()
        );
        match leader.filter(|leader| orphans.contains(leader)) {
            Some(leader) => signal(leader, leader_signal)?,
            None => orphans.iter().try_for_each(|pid| signal(*pid, others))?,
        }
        if self.all_ended_within(STOP_TIMEOUT).await {
            return Ok(());
        }
        // The second search is needed, because a pid may have been reused in the meantime.
        self.find().await.iter().try_for_each(|pid| signal(*pid, Signal::KILL))?;
        if !self.all_ended_within(KILL_TIMEOUT).await {
            bail!(
                "processes of an earlier run on {} do not end, not even after SIGKILL",
                self.folder.display()
            );
        }
        Ok(())
    }

    async fn all_ended_within(&self, time_limit: Duration) -> bool {
        let deadline = Instant::now() + time_limit;
        let mut pause = Duration::from_millis(5);
        while Instant::now() < deadline {
            if self.find().await.is_empty() {
                return true;
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(200));
        }
        self.find().await.is_empty()
    }

    fn in_folder(&self) -> Vec<Pid> {
        let Ok(folder) = fs::metadata(self.folder) else { return Vec::new() };
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids =
            entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
        let mut orphans: Vec<Pid> = pids
            .filter(|pid| {
                working_directory(*pid)
                    .is_some_and(|other| (other.dev(), other.ino()) == (folder.dev(), folder.ino()))
                    && has_our_name(*pid)
            })
            .collect();
        orphans.sort_unstable_by_key(|pid| pid.as_raw_nonzero());
        orphans
    }

    /// Returns the process that listens at the socket, if it is an orphan. On Linux, only an orphan whose folder has
    /// been deleted is returned, because the working directory identifies all others.
    async fn listener(&self) -> Option<Pid> {
        let peer = UnixStream::connect(self.socket).await.ok()?.peer_cred().ok()?;
        let pid = Pid::from_raw(peer.pid()?).filter(|_| peer.uid() == self.uid)?;
        let removed = || working_directory(pid).is_some_and(|folder| folder.nlink() == 0);
        let is_ours = !Path::new("/proc/self/cwd").exists() || has_our_name(pid) && removed();
        is_ours.then_some(pid)
    }

    /// Checks that no process listens at the socket.
    ///
    /// # Errors
    /// If a process listens. That process is unrelated, because all orphans have been stopped before this check.
    pub(super) async fn check_no_listener(&self) -> Result<()> {
        match UnixStream::connect(self.socket).await {
            Ok(_) => bail!(
                "another program listens at {}, the socket path of this data folder: stop that program first",
                self.socket.display()
            ),
            Err(_) => Ok(()),
        }
    }
}

fn working_directory(pid: Pid) -> Option<fs::Metadata> {
    fs::metadata(format!("/proc/{}/cwd", pid.as_raw_nonzero())).ok()
}

fn has_our_name(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero()))
        .is_ok_and(|name| PROCESS_NAMES.contains(&name.trim_end()))
}

fn signal(pid: Pid, signal: Signal) -> Result<()> {
    match kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(io::Error::from(error))
            .with_context(|| format!("cannot signal process {}", pid.as_raw_nonzero())),
    }
}
