//! Processes that an earlier run left on a folder. The lock of the data folder is ours when this runs, so whatever serves
//! the folder now has lost its master. A pid file proves nothing (the number may be somebody else's by now); a process is
//! ours if its working directory **is** the folder, by device and inode, and its name is that of a service. Where there is
//! no `/proc` (macOS), it is whoever listens at our socket, as the kernel names it.

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

/// How long an orphan may take to end by itself before it is killed.
const PATIENCE: Duration = Duration::from_secs(30);
const AFTER_KILL: Duration = Duration::from_secs(10);

/// What our children are called, also before they have become what they shall be.
const NAMES: [&str; 6] =
    ["postgres", "postmaster", "initdb", "redis-server", "valkey-server", "setpriv"];

/// A service whose leftovers are looked for.
pub(super) struct Traces<'a> {
    /// The working directory of its processes.
    pub(super) folder: &'a Path,
    /// Where it listens.
    pub(super) socket: &'a Path,
    /// Whom it runs as.
    pub(super) uid: u32,
}

impl Traces<'_> {
    /// The processes that are left, oldest number first.
    pub(super) async fn find(&self) -> Vec<Pid> {
        let mut found = self.in_folder();
        if let Some(pid) = self.listener().await
            && !found.contains(&pid)
        {
            found.push(pid);
        }
        found
    }

    /// Asks by a signal, waits, then kills. `leader` is asked alone if it is among them: it ends the others in order.
    pub(super) async fn end(&self, leader: Option<Pid>, ask: Signal, others: Signal) -> Result<()> {
        let found = self.find().await;
        if found.is_empty() {
            return Ok(());
        }
        info!(
            folder = %self.folder.display(),
            processes = found.len(),
            "an earlier run is still alive on {}: it is stopped first",
            self.folder.display()
        );
        match leader.filter(|leader| found.contains(leader)) {
            Some(leader) => signal(leader, ask)?,
            None => found.iter().try_for_each(|pid| signal(*pid, others))?,
        }
        if self.gone_within(PATIENCE).await {
            return Ok(());
        }
        // Looked for again: in the meantime a number may have passed to somebody else.
        self.find().await.iter().try_for_each(|pid| signal(*pid, Signal::KILL))?;
        if !self.gone_within(AFTER_KILL).await {
            bail!("processes of an earlier run on {} do not end", self.folder.display());
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

    /// Who listens at the socket, if that is a leftover of ours: on Linux one whose folder has been removed under it, for
    /// the others are found by their folder.
    async fn listener(&self) -> Option<Pid> {
        let peer = UnixStream::connect(self.socket).await.ok()?.peer_cred().ok()?;
        let pid = Pid::from_raw(peer.pid()?).filter(|_| peer.uid() == self.uid)?;
        let removed = || working_directory(pid).is_some_and(|folder| folder.nlink() == 0);
        let is_ours = !Path::new("/proc/self/cwd").exists() || has_our_name(pid) && removed();
        is_ours.then_some(pid)
    }

    /// Fails if somebody listens at the socket: a stranger, since ours have been ended.
    pub(super) async fn nobody_listens(&self) -> Result<()> {
        match UnixStream::connect(self.socket).await {
            Ok(_) => bail!(
                "another program listens at {}, which is named after our data folder",
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
        .is_ok_and(|name| NAMES.contains(&name.trim_end()))
}

fn signal(pid: Pid, signal: Signal) -> Result<()> {
    match kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(io::Error::from(error))
            .with_context(|| format!("signal process {}", pid.as_raw_nonzero())),
    }
}
