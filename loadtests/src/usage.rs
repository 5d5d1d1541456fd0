//! CPU and memory of processes, from `/proc`.

use std::{collections::HashMap, fs, ops::Sub, time::Duration};

use anyhow::{Context, Result};
use serde::Serialize;

/// Linux tells times in this unit on all its architectures, whatever the kernel counts in.
const TICK: Duration = Duration::from_millis(10);

/// What one line of `/proc/PID/stat` says.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    name: String,
    parent: u32,
    /// User and system time of all threads, ended ones too.
    own: Duration,
    /// The same of children that ended and were waited for.
    reaped: Duration,
}

impl Stat {
    fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let line = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        Self::parse(&line).with_context(|| format!("understand {path}"))
    }

    fn parse(line: &str) -> Option<Self> {
        // The name is in parentheses and may hold any character.
        let (head, tail) = line.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        // From field 3 on, see proc_pid_stat(5).
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

/// CPU time, by whom it was taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cpu {
    /// The server that is asked.
    pub(crate) server: Duration,
    /// Postgres, all its processes.
    pub(crate) postgres: Duration,
    /// This process.
    pub(crate) client: Duration,
    /// The whole machine, theirs included.
    pub(crate) machine: Duration,
}

impl Cpu {
    /// Taken so far.
    pub(crate) fn read(server: u32, postgres: u32) -> Result<Self> {
        Ok(Self {
            server: Stat::of(server)?.own,
            postgres: of_tree(postgres)?,
            client: Stat::of(std::process::id())?.own,
            machine: of_machine()?,
        })
    }

    /// What others took meanwhile, on this machine or, by its hypervisor, from it.
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

/// Taken so far by one process.
pub(crate) fn of_process(pid: u32) -> Result<Duration> {
    Ok(Stat::of(pid)?.own)
}

/// A process of one thread each below it. Their scheduler's nanoseconds, because a tick is much for each of twenty.
pub(crate) fn of_tree(root: u32) -> Result<Duration> {
    let root_stat = Stat::of(root)?;
    let below = descendants(root)?;
    Ok(below.iter().map(|(pid, stat)| precise(*pid).unwrap_or(stat.own)).sum::<Duration>()
        + precise(root).unwrap_or(root_stat.own)
        + root_stat.reaped)
}

fn precise(pid: u32) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    text.split_ascii_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

pub(crate) fn of_machine() -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    busy(&text).context("understand /proc/stat")
}

fn busy(text: &str) -> Option<Duration> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u32> =
        line.split_ascii_whitespace().map_while(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guests are within user and nice.
    let [user, nice, system, _, _, irq, softirq, steal] = *ticks.first_chunk()?;
    Some([user, nice, system, irq, softirq, steal].into_iter().map(|count| TICK * count).sum())
}

fn descendants(root: u32) -> Result<Vec<(u32, Stat)>> {
    let mut children: HashMap<u32, Vec<(u32, Stat)>> = HashMap::new();
    for entry in fs::read_dir("/proc").context("read /proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // It may have ended since.
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

/// The child of that name.
pub(crate) fn child_named(parent: u32, name: &str) -> Result<u32> {
    let found = descendants(parent)?.into_iter().find(|(_, stat)| stat.name == name);
    found.map(|(pid, _)| pid).with_context(|| format!("process {parent} has no {name} below it"))
}

/// Memory in KiB. `pss` shares what several processes map among them; `rss` counts it for each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Memory {
    /// Resident.
    pub(crate) rss_kib: u32,
    /// Resident, in proportion.
    pub(crate) pss_kib: u32,
}

impl Memory {
    /// Of one process.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        Self::parse(&text).with_context(|| format!("understand {path}"))
    }

    fn parse(text: &str) -> Option<Self> {
        let of = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix(" kB")?.parse().ok()
        };
        Some(Self { rss_kib: of("Rss:")?, pss_kib: of("Pss:")? })
    }

    /// Of all processes below this one whose name starts so.
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

/// The most that a process has had resident since [`forget_peak`] or its start, in KiB, as the kernel kept it.
pub(crate) fn peak_kib(pid: u32) -> Result<u32> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
    peak.with_context(|| format!("understand {path}"))
}

/// From now on the peak is what comes.
pub(crate) fn forget_peak(pid: u32) -> Result<()> {
    // See proc_pid_clear_refs(5).
    let path = format!("/proc/{pid}/clear_refs");
    fs::write(&path, "5").with_context(|| format!("write {path}"))
}

/// What something took of a process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    /// Resident at most, and in proportion the most that was seen.
    pub(crate) memory: Memory,
    /// User and system time.
    pub(crate) cpu: Duration,
}

/// Looks at a process while it does something.
pub(crate) struct Watched {
    pid: u32,
    pss_kib: u32,
    cpu: Duration,
}

impl Watched {
    /// From now on.
    pub(crate) fn begin(pid: u32) -> Result<Self> {
        forget_peak(pid)?;
        Ok(Self { pid, pss_kib: 0, cpu: of_process(pid)? })
    }

    /// A look at what the kernel keeps no peak of.
    pub(crate) fn look(&mut self) -> Result<()> {
        self.pss_kib = self.pss_kib.max(Memory::of(self.pid)?.pss_kib);
        Ok(())
    }

    /// Until now.
    pub(crate) fn taken(&self) -> Result<Taken> {
        let memory = Memory { rss_kib: peak_kib(self.pid)?, pss_kib: self.pss_kib };
        Ok(Taken { memory, cpu: of_process(self.pid)?.saturating_sub(self.cpu) })
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
        assert_eq!(busy(text), Some(Duration::from_millis(1600)));
    }

    #[test]
    fn a_peak_is_forgotten() {
        let pid = std::process::id();
        let large = vec![1_u8; 64 << 20];
        let with = peak_kib(pid).unwrap();
        assert!(with > 64 << 10, "{with} KiB, {}", large.len());
        drop(large);
        forget_peak(pid).unwrap();
        assert!(peak_kib(pid).unwrap() + (32 << 10) < with);
    }

    #[test]
    fn memory_is_read_from_the_rollup() {
        let text = "0-1 ---p 0 00:00 0 [rollup]\nRss:   1760 kB\nPss:    232 kB\nPss_Dirty: 1 kB\n";
        assert_eq!(Memory::parse(text), Some(Memory { rss_kib: 1760, pss_kib: 232 }));
    }
}
