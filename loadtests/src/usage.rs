//! CPU time and memory of processes, from `/proc`.

use std::{collections::HashMap, fs, ops::Sub, time::Duration};

use anyhow::{Context, Result};
use serde::Serialize;

/// Unit of CPU times in `/proc`. The unit is the same on all Linux architectures and independent of the kernel's tick
/// rate.
const TICK: Duration = Duration::from_millis(10);

/// Parsed line of `/proc/PID/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    name: String,
    parent: u32,
    /// User and system time of all threads, including those that have ended.
    own: Duration,
    /// User and system time of children that have ended and been reaped.
    reaped: Duration,
}

impl Stat {
    fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let line = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        Self::parse(&line).with_context(|| format!("parse {path}"))
    }

    fn parse(line: &str) -> Option<Self> {
        // The name is in parentheses and may contain any character.
        let (head, tail) = line.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        // These are the fields from 3 on; see proc_pid_stat(5).
        let fields: Vec<_> = tail.split_ascii_whitespace().collect();
        let ticks = |field: usize| Some(TICK * fields.get(field - 3)?.parse::<u32>().ok()?);
        Some(Self {
            name: name.to_owned(),
            parent: fields.get(1)?.parse().ok()?,
            own: ticks(14)? + ticks(15)?,
            reaped: ticks(16)? + ticks(17)?,
        })
    }
}

/// CPU times of the server, Postgres, the client and the machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cpu {
    /// CPU time of the server under load.
    pub(crate) server: Duration,
    /// CPU time of all Postgres processes.
    pub(crate) postgres: Duration,
    /// CPU time of this process, the client.
    pub(crate) client: Duration,
    /// CPU time of the whole machine, including the server, Postgres and the client.
    pub(crate) machine: Duration,
}

impl Cpu {
    /// Reads the CPU times used so far. `server` and `postgres` are the process ids of the server and the postmaster.
    pub(crate) fn read(server: u32, postgres: u32) -> Result<Self> {
        Ok(Self {
            server: Stat::of(server)?.own,
            postgres: of_tree(postgres)?,
            client: Stat::of(std::process::id())?.own,
            machine: of_machine()?,
        })
    }

    /// Returns the CPU time of all other processes on this machine, including steal: time that the hypervisor gave to
    /// other machines.
    pub(crate) fn others(&self) -> Duration {
        self.machine.saturating_sub(self.server + self.postgres + self.client)
    }
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            server: self.server.saturating_sub(before.server),
            postgres: self.postgres.saturating_sub(before.postgres),
            client: self.client.saturating_sub(before.client),
            machine: self.machine.saturating_sub(before.machine),
        }
    }
}

/// Returns the CPU time used so far by one process.
pub(crate) fn of_process(pid: u32) -> Result<Duration> {
    Ok(Stat::of(pid)?.own)
}

/// Returns the CPU time used so far by a process and its descendants, each of which must have a single thread. Uses the
/// scheduler's values in nanoseconds if available, because rounding to ticks is too coarse for twenty processes.
pub(crate) fn of_tree(root: u32) -> Result<Duration> {
    let root_stat = Stat::of(root)?;
    let below = descendants(root)?;
    Ok(below
        .iter()
        .map(|(pid, stat)| scheduler_cpu_time(*pid).unwrap_or(stat.own))
        .sum::<Duration>()
        + scheduler_cpu_time(root).unwrap_or(root_stat.own)
        + root_stat.reaped)
}

fn scheduler_cpu_time(pid: u32) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    text.split_ascii_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

pub(crate) fn of_machine() -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    busy_time(&text).context("parse /proc/stat")
}

fn busy_time(text: &str) -> Option<Duration> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u32> =
        line.split_ascii_whitespace().map_while(|field| field.parse().ok()).collect();
    // Fields: user nice system idle iowait irq softirq steal. Guest time is included in user and nice.
    let [user, nice, system, _, _, irq, softirq, steal] = *ticks.first_chunk()?;
    Some([user, nice, system, irq, softirq, steal].into_iter().map(|count| TICK * count).sum())
}

fn descendants(root: u32) -> Result<Vec<(u32, Stat)>> {
    let mut children: HashMap<u32, Vec<(u32, Stat)>> = HashMap::new();
    for entry in fs::read_dir("/proc").context("read /proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // The process may have exited after the folder was listed.
        let Ok(stat) = Stat::of(pid) else { continue };
        children.entry(stat.parent).or_default().push((pid, stat));
    }
    let mut found = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        let below = children.remove(&parent).unwrap_or_default();
        parents.extend(below.iter().map(|(pid, _)| *pid));
        found.extend(below);
    }
    Ok(found)
}

/// Returns the id of a descendant of `parent` with this name.
///
/// # Errors
/// Fails if `parent` has no such descendant.
pub(crate) fn child_named(parent: u32, name: &str) -> Result<u32> {
    let found = descendants(parent)?.into_iter().find(|(_, stat)| stat.name == name);
    found
        .map(|(pid, _)| pid)
        .with_context(|| format!("process {parent} has no descendant named {name}"))
}

/// Memory of a process. A page that several processes share counts fully for each of them in the resident set size, and
/// in equal parts in the proportional set size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Memory {
    /// Resident set size, in KiB.
    pub(crate) rss_kib: u32,
    /// Proportional set size, in KiB.
    pub(crate) pss_kib: u32,
}

impl Memory {
    /// Reads the current memory of one process.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        Self::parse(&text).with_context(|| format!("parse {path}"))
    }

    fn parse(text: &str) -> Option<Self> {
        let of = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix(" kB")?.parse().ok()
        };
        Some(Self { rss_kib: of("Rss:")?, pss_kib: of("Pss:")? })
    }

    /// Sums the memory of all descendants of `parent` with a name that starts with one of `names`.
    pub(crate) fn below(parent: u32, names: &[&str]) -> Result<Self> {
        let mut sum = Self::default();
        for (pid, stat) in descendants(parent)? {
            if names.iter().any(|name| stat.name.starts_with(name)) {
                let memory = Self::of(pid)?;
                sum.rss_kib += memory.rss_kib;
                sum.pss_kib += memory.pss_kib;
            }
        }
        Ok(sum)
    }
}

/// Returns the peak of the resident set size of a process in KiB, as recorded by the kernel since the last
/// [`reset_peak`], or since the start of the process.
pub(crate) fn peak_kib(pid: u32) -> Result<u32> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
    peak.with_context(|| format!("parse {path}"))
}

/// Resets the peak resident set size of a process to its current value.
pub(crate) fn reset_peak(pid: u32) -> Result<()> {
    // See proc_pid_clear_refs(5).
    let path = format!("/proc/{pid}/clear_refs");
    fs::write(&path, "5").with_context(|| format!("write {path}"))
}

/// Memory and CPU time that a process used during an observation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// Peak of the resident set size, and the largest sample of the proportional set size.
    pub(crate) memory: Memory,
    /// User and system time during the observation.
    pub(crate) cpu: Duration,
}

/// Observation of a process's memory and CPU time.
pub(crate) struct Observation {
    pid: u32,
    pss_kib: u32,
    cpu: Duration,
}

impl Observation {
    /// Begins an observation and resets the peak resident set size.
    pub(crate) fn begin(pid: u32) -> Result<Self> {
        reset_peak(pid)?;
        Ok(Self { pid, pss_kib: 0, cpu: of_process(pid)? })
    }

    /// Samples the proportional set size, because the kernel does not record its peak.
    pub(crate) fn sample(&mut self) -> Result<()> {
        self.pss_kib = self.pss_kib.max(Memory::of(self.pid)?.pss_kib);
        Ok(())
    }

    /// Returns the usage since the observation began.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let memory = Memory { rss_kib: peak_kib(self.pid)?, pss_kib: self.pss_kib };
        Ok(Usage { memory, cpu: of_process(self.pid)?.saturating_sub(self.cpu) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_behind_its_name() {
        let line = "7 (a) b (c) S 3 7 7 0 -1 0 1 2 3 4 150 50 7 3 20 0 1 0 99";
        let expected = Stat {
            name: "a) b (c".to_owned(),
            parent: 3,
            own: Duration::from_secs(2),
            reaped: Duration::from_millis(100),
        };
        assert_eq!(Stat::parse(line), Some(expected));
        assert_eq!(Stat::parse("7 (a) S 3"), None);
    }

    #[test]
    fn waiting_is_not_busy() {
        let text = "cpu  100 1 50 9999 999 2 3 4 88 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(busy_time(text), Some(Duration::from_millis(1600)));
    }

    #[test]
    fn a_peak_is_forgotten() {
        let pid = std::process::id();
        let large = vec![1_u8; 64 << 20];
        let with = peak_kib(pid).unwrap();
        assert!(with > 64 << 10, "{with} KiB, {}", large.len());
        drop(large);
        reset_peak(pid).unwrap();
        assert!(peak_kib(pid).unwrap() + (32 << 10) < with);
    }

    #[test]
    fn memory_is_read_from_the_rollup() {
        let text = "0-1 ---p 0 00:00 0 [rollup]\nRss:   1760 kB\nPss:    232 kB\nPss_Dirty: 1 kB\n";
        assert_eq!(Memory::parse(text), Some(Memory { rss_kib: 1760, pss_kib: 232 }));
    }
}
