//! Processes that an earlier run left on a folder. This runs while we hold the lock of the data folder, so any service
//! on the folder has lost the process that started it. A pid file proves nothing, because the pid may be reused. A
//! process is ours if its working directory **is** the folder, by device and inode, and its name is that of a service.
//! Without `/proc` (macOS), it is the peer that the kernel reports for our socket.

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

/// Time that an orphan has to end after the first signal, before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Process names of our children, including `setpriv`, which becomes the service with `exec`.
const PROCESS_NAMES: [&str; 6] =
    ["postgres", "postmaster", "initdb", "redis-server", "valkey-server", "setpriv"];

/// Traces by which the orphaned processes of a service are found.
pub(super) struct OrphanSearch<'a> {
    /// Working directory of the service's processes.
    pub(super) folder: &'a Path,
    /// Socket on which the service listens.
    pub(super) socket: &'a Path,
    /// Uid that the service runs as.
    pub(super) uid: u32,
}

impl OrphanSearch<'_> {
    /// Returns the orphaned processes, by ascending pid; one known only by the socket comes last.
    pub(super) async fn find(&self) -> Vec<Pid> {
        let mut found = self.in_folder();
        if let Some(pid) = self.listener().await
            && !found.contains(&pid)
        {
            found.push(pid);
        }
        found
    }

    /// Sends a signal, waits, then kills. If `leader` is among the processes, only it gets `ask`, because it stops the
    /// others in order; else all get `others`.
    pub(super) async fn end(&self, leader: Option<Pid>, ask: Signal, others: Signal) -> Result<()> {
        let found = self.find().await;
        if found.is_empty() {
            return Ok(());
        }
        info!(
            folder = %self.folder.display(),
            processes = found.len(),
            "processes of an earlier run are still running on {}: stopping them first",
            self.folder.display()
        );
        match leader.filter(|leader| found.contains(leader)) {
            Some(leader) => signal(leader, ask)?,
            None => found.iter().try_for_each(|pid| signal(*pid, others))?,
        }
        if self.gone_within(STOP_TIMEOUT).await {
            return Ok(());
        }
        // Searched again, because a pid may have been reused in the meantime.
        self.find().await.iter().try_for_each(|pid| signal(*pid, Signal::KILL))?;
        if !self.gone_within(KILL_TIMEOUT).await {
            bail!(
                "processes of an earlier run on {} do not end, not even after SIGKILL",
                self.folder.display()
            );
        }
        Ok(())
    }

    async fn gone_within(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
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
        let mut found: Vec<Pid> = pids
            .filter(|pid| {
                working_directory(*pid)
                    .is_some_and(|other| (other.dev(), other.ino()) == (folder.dev(), folder.ino()))
                    && has_our_name(*pid)
            })
            .collect();
        found.sort_unstable_by_key(|pid| pid.as_raw_nonzero());
        found
    }

    /// Returns the process that listens at the socket, if it is an orphan of ours. On Linux only one whose folder has
    /// been deleted, because the others are found by their folder.
    async fn listener(&self) -> Option<Pid> {
        let peer = UnixStream::connect(self.socket).await.ok()?.peer_cred().ok()?;
        let pid = Pid::from_raw(peer.pid()?).filter(|_| peer.uid() == self.uid)?;
        let removed = || working_directory(pid).is_some_and(|folder| folder.nlink() == 0);
        let is_ours = !Path::new("/proc/self/cwd").exists() || has_our_name(pid) && removed();
        is_ours.then_some(pid)
    }

    /// Fails if any process listens at the socket. It is not ours, because ours have been stopped.
    pub(super) async fn nobody_listens(&self) -> Result<()> {
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
