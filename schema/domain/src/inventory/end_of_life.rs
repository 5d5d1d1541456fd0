//! Until when systems get security updates: the table `end_of_life.csv`, and the spellings in which inventories name them.
//!
//! The last day is of the updates that everybody gets: Debian's free LTS but not its paid ELTS, Ubuntu's standard support but not
//! ESM, no extension that is bought. Where editions differ (Windows), the longer life takes the edition's name. The day is
//! included, in UTC; none is one that its maker has not named. macOS names no days: there it is the release of the third next
//! version, which comes each September.
//!
//! What is unknown is not derived, rather than guessed: another system, a version that the table lacks, a name with a word before
//! the version that we do not know. A version counts by the components that the table has, so 20.04.6 is Ubuntu 20.04 and 8.9 is
//! RHEL 8. Without its second part (`Windows 10`, `SLES 12`) it is known only where all such parts have ended: at the last one's end.
//!
//! The table is generated: `end_of_life/generate` writes it from a snapshot of published data, and a test holds the two
//! equal. The snapshot names each row's source and the day on which it was read. Releases later than the snapshot are
//! unknown until it is refreshed.
//!
//! Long by the spellings: each maker has its own, and each is read beside its test.

use std::{collections::HashMap, sync::LazyLock};

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};

const TABLE: &str = include_str!("end_of_life.csv");

/// A system and version that the table knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SupportedSystem {
    /// Its name, e.g. `Debian`.
    pub system: &'static str,
    /// Its version, with as many components as decide, e.g. `20.04` or `2012 R2`.
    pub version: &'static str,
    /// The last day with security updates; `None`: no end is announced.
    pub supported_until: Option<NaiveDate>,
}

impl SupportedSystem {
    /// Whether it gets security updates then.
    pub fn is_supported_at(&self, now: DateTime<Utc>) -> bool {
        self.ends_at().is_none_or(|end| now < end)
    }

    /// The first instant without security updates; `None`: no end is announced.
    pub fn ends_at(&self) -> Option<DateTime<Utc>> {
        let after = self.supported_until?.succ_opt()?;
        Some(after.and_time(NaiveTime::MIN).and_utc())
    }
}

/// The system from which it follows whether an asset's is supported: one that is known by these, where nobody says better.
pub(crate) fn deciding(
    is_said: bool,
    os_name: Option<&str>,
    os_version: Option<&str>,
) -> Option<SupportedSystem> {
    if is_said { None } else { of(os_name?, os_version) }
}

/// The system that a name such as `Ubuntu 20.04.6 LTS` or `Microsoft Windows Server 2019 Standard` means, its version in the name or
/// beside it.
pub fn of(os_name: &str, os_version: Option<&str>) -> Option<SupportedSystem> {
    let text = format!("{os_name} {}", os_version.unwrap_or_default()).to_lowercase();
    let words: Vec<&str> = text.split(is_between_words).filter(|word| !word.is_empty()).collect();
    let (system, rest) = NAMES.iter().find_map(|(name, system)| {
        let name: Vec<_> = name.split(' ').collect();
        Some((*system, words.strip_prefix(&name[..])?))
    })?;
    if rest.iter().any(|word| OTHER.contains(word)) {
        return None;
    }
    let edition = EDITIONS
        .iter()
        .find(|(of, word, _)| *of == system && rest.contains(word))
        .map_or(system, |(_, _, edition)| edition);
    let known = BY_SYSTEM.get(edition)?;
    let first = rest.iter().position(|word| !FILLERS.contains(word))?;
    let (version, behind) = (version_of(rest[first]), &rest[first + 1..]);
    let in_two = behind.iter().find_map(|word| known.get(format!("{version} {word}").as_str()));
    let in_one = || match edition {
        // 10.0 is said of Windows 11 and all its servers too, so only the whole word counts.
        WINDOWS | WINDOWS_ENTERPRISE | WINDOWS_LTSC | WINDOWS_SERVER => known.get(version),
        _ => shorter(version).find_map(|version| known.get(version)),
    };
    in_two.or_else(in_one).copied()
}

const WINDOWS: &str = "Windows";
const WINDOWS_ENTERPRISE: &str = "Windows Enterprise";
const WINDOWS_LTSC: &str = "Windows LTSC";
const WINDOWS_SERVER: &str = "Windows Server";

/// How names begin, the longer ones before those that they begin with; and what the table calls the system.
const NAMES: [(&str, &str); 40] = [
    ("debian gnu linux", "Debian"),
    ("debian linux", "Debian"),
    ("debian", "Debian"),
    ("ubuntu linux", "Ubuntu"),
    ("ubuntu server", "Ubuntu"),
    ("ubuntu", "Ubuntu"),
    ("red hat enterprise linux", "RHEL"),
    ("redhat enterprise linux", "RHEL"),
    ("rhel", "RHEL"),
    ("rocky linux", "Rocky Linux"),
    ("rocky", "Rocky Linux"),
    ("almalinux", "AlmaLinux"),
    ("alma linux", "AlmaLinux"),
    ("centos linux", "CentOS Linux"),
    ("centos", "CentOS Linux"),
    ("oracle linux", "Oracle Linux"),
    ("fedora linux", "Fedora"),
    ("fedora", "Fedora"),
    ("suse linux enterprise server", "SLES"),
    ("sles", "SLES"),
    ("opensuse leap", "openSUSE Leap"),
    ("amazon linux", "Amazon Linux"),
    ("alpine linux", "Alpine"),
    ("alpine", "Alpine"),
    ("linux mint", "Linux Mint"),
    ("linuxmint", "Linux Mint"),
    ("nixos", "NixOS"),
    ("proxmox virtual environment", "Proxmox VE"),
    ("proxmox ve", "Proxmox VE"),
    ("vmware esxi", "VMware ESXi"),
    ("esxi", "VMware ESXi"),
    ("freebsd", "FreeBSD"),
    ("apple macos", "macOS"),
    ("macos", "macOS"),
    ("mac os x", "macOS"),
    ("os x", "macOS"),
    ("microsoft windows server", WINDOWS_SERVER),
    ("windows server", WINDOWS_SERVER),
    ("microsoft windows", WINDOWS),
    ("windows", WINDOWS),
];

/// Words behind a name that make it another system of the table; the first that is found counts.
const EDITIONS: [(&str, &str, &str); 5] = [
    ("CentOS Linux", "stream", "CentOS Stream"),
    (WINDOWS, "ltsc", WINDOWS_LTSC),
    (WINDOWS, "ltsb", WINDOWS_LTSC),
    (WINDOWS, "enterprise", WINDOWS_ENTERPRISE),
    (WINDOWS, "education", WINDOWS_ENTERPRISE),
];

/// Words that may stand between name and version without a meaning for it.
const FILLERS: [&str; 12] = [
    "release",
    "version",
    "linux",
    "server",
    "workstation",
    "client",
    "desktop",
    "ami",
    "os",
    "stream",
    "n",
    "lts",
];

/// Words that make a name mean something else than what the table has, such as a version to come or one for devices.
const OTHER: [&str; 10] = [
    "sid",
    "unstable",
    "testing",
    "rawhide",
    "tumbleweed",
    "beta",
    "rc",
    "current",
    "iot",
    "embedded",
];

/// Dots hold versions together, everything else that is no letter and no digit parts words.
fn is_between_words(character: char) -> bool {
    !character.is_alphanumeric() && character != '.'
}

/// `v3.18` is 3.18.
fn version_of(word: &str) -> &str {
    let bare = word.strip_prefix('v').unwrap_or(word);
    if bare.starts_with(|first: char| first.is_ascii_digit()) { bare } else { word }
}

/// The version, then without its last component, and so on.
fn shorter(version: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(version), |version| Some(version.rsplit_once('.')?.0))
}

type Versions = HashMap<String, SupportedSystem>;

/// The table's rows by system, then by version and by the other words for it, in lower case.
static BY_SYSTEM: LazyLock<HashMap<&'static str, Versions>> = LazyLock::new(|| {
    let mut systems: HashMap<_, Versions> = HashMap::new();
    for line in lines() {
        let (row, words) = row(line).expect("the tests read every row of the table");
        let versions = systems.entry(row.system).or_default();
        versions.extend(words.map(|word| (word.to_lowercase(), row)));
    }
    systems
});

/// The table's rows, below its head of sources, date and column names.
fn lines() -> impl Iterator<Item = &'static str> {
    TABLE.lines().skip_while(|line| line.starts_with('#')).skip(1)
}

/// One line of the table: no cell holds a comma, so none is in quotes. The last cell's words are parted by `|`.
fn row(
    line: &'static str,
) -> Option<(SupportedSystem, impl Iterator<Item = &'static str> + use<>)> {
    let cells: Vec<_> = line.split(',').collect();
    let [system, version, until, also] = cells[..] else { return None };
    let supported_until = match until {
        "" => None,
        day => Some(day.parse().ok()?),
    };
    let words = std::iter::once(version).chain(also.split('|')).filter(|word| !word.is_empty());
    Some((SupportedSystem { system, version, supported_until }, words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    #[test]
    fn every_row_is_whole_and_no_spelling_is_said_twice() {
        let mut seen = std::collections::HashSet::new();
        let mut rows = 0;
        for line in lines() {
            let (row, words) = row(line).unwrap_or_else(|| panic!("{line}"));
            assert!(
                NAMES.iter().any(|(_, system)| *system == row.system)
                    || EDITIONS.iter().any(|(_, _, edition)| *edition == row.system),
                "{line}: no name leads here"
            );
            for word in words {
                assert!(seen.insert((row.system, word.to_lowercase())), "{line}: {word} again");
            }
            rows += 1;
        }
        // Three lines of head.
        assert_eq!(rows, TABLE.lines().count() - 3);
    }

    #[test]
    fn the_table_is_generated_from_the_snapshot() {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/inventory/end_of_life/generate");
        let checked = std::process::Command::new(script).arg("--check").output().unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    }

    #[test]
    fn the_table_says_where_it_is_from_and_as_of_which_month() {
        let mut head = TABLE.lines();
        assert!(head.next().is_some_and(|line| line.starts_with("# Sources: ")));
        let month = head.next().and_then(|line| line.strip_prefix("# As of: ")).unwrap();
        day(&format!("{month}-01"));
        assert_eq!(head.next(), Some("system,version,supported_until,also"));
    }

    #[test]
    fn a_longer_name_stands_before_what_it_begins_with() {
        for (index, (name, _)) in NAMES.iter().enumerate() {
            let earlier =
                NAMES[..index].iter().find(|(earlier, _)| name.starts_with(&format!("{earlier} ")));
            assert_eq!(earlier, None, "{name} is never reached");
        }
    }

    #[test]
    fn systems_are_recognised_as_inventories_spell_them() {
        let check =
            |os_name: &str, os_version: Option<&str>, system: &str, version: &str, until: &str| {
                let found =
                    of(os_name, os_version).unwrap_or_else(|| panic!("{os_name} {os_version:?}"));
                let until = (!until.is_empty()).then(|| day(until));
                assert_eq!(
                    (found.system, found.version, found.supported_until),
                    (system, version, until),
                    "{os_name} {os_version:?}"
                );
            };
        for (name, system, version, until) in [
            ("Ubuntu Linux 20.04", "Ubuntu", "20.04", "2025-05-29"),
            ("Ubuntu 20.04.6 LTS (Focal Fossa)", "Ubuntu", "20.04", "2025-05-29"),
            ("ubuntu 22.04", "Ubuntu", "22.04", "2027-06-01"),
            ("Ubuntu jammy", "Ubuntu", "22.04", "2027-06-01"),
            ("Ubuntu Noble Numbat", "Ubuntu", "24.04", "2029-05-31"),
            ("Debian GNU/Linux 12 (bookworm)", "Debian", "12", "2028-06-30"),
            ("debian 12.5", "Debian", "12", "2028-06-30"),
            ("Debian bookworm", "Debian", "12", "2028-06-30"),
            ("Debian GNU/Linux 6.0.10 (squeeze)", "Debian", "6.0", "2016-02-29"),
            ("Debian 9", "Debian", "9", "2022-06-30"),
            ("Red Hat Enterprise Linux Server release 7.9 (Maipo)", "RHEL", "7", "2024-06-30"),
            ("Red Hat Enterprise Linux 9.4 (Plow)", "RHEL", "9", "2032-05-31"),
            ("RHEL 8.9", "RHEL", "8", "2029-05-31"),
            ("Rocky Linux 9.3 (Blue Onyx)", "Rocky Linux", "9", "2032-05-31"),
            ("AlmaLinux OS 8.10", "AlmaLinux", "8", "2029-03-01"),
            ("CentOS Linux 7 (Core)", "CentOS Linux", "7", "2024-06-30"),
            ("CentOS Linux release 7.9.2009 (Core)", "CentOS Linux", "7", "2024-06-30"),
            ("CentOS release 6.10 (Final)", "CentOS Linux", "6", "2020-11-30"),
            ("CentOS Stream 9", "CentOS Stream", "9", "2027-05-31"),
            ("CentOS Linux 8 Stream", "CentOS Stream", "8", "2024-05-31"),
            ("Oracle Linux Server 8.9", "Oracle Linux", "8", "2029-07-31"),
            ("Fedora Linux 39 (Workstation Edition)", "Fedora", "39", "2024-11-26"),
            ("Fedora release 41 (Forty One)", "Fedora", "41", "2025-12-15"),
            ("Fedora Linux 44 (Server Edition)", "Fedora", "44", "2027-06-02"),
            ("SUSE Linux Enterprise Server 15 SP5", "SLES", "15 SP5", "2024-12-31"),
            ("SLES 12-SP5", "SLES", "12 SP5", "2024-10-31"),
            ("SUSE Linux Enterprise Server 15.7", "SLES", "15 SP7", "2031-07-31"),
            ("openSUSE Leap 15.5", "openSUSE Leap", "15.5", "2024-12-31"),
            ("Amazon Linux 2", "Amazon Linux", "2", "2026-06-30"),
            ("Amazon Linux AMI 2018.03", "Amazon Linux", "1", "2023-12-31"),
            ("Amazon Linux 2023.3.20231218", "Amazon Linux", "2023", "2029-06-30"),
            ("Alpine Linux v3.18", "Alpine", "3.18", "2025-05-09"),
            ("Alpine 3.1", "Alpine", "3.1", "2016-11-01"),
            ("Linux Mint 21.2 (Victoria)", "Linux Mint", "21", "2027-04-30"),
            ("NixOS 24.11 (Vicuña)", "NixOS", "24.11", "2025-06-30"),
            ("Proxmox VE 8.1", "Proxmox VE", "8", "2026-08-31"),
            ("Proxmox Virtual Environment 9.0", "Proxmox VE", "9", ""),
            ("VMware ESXi 6.7.0", "VMware ESXi", "6.7", "2022-10-15"),
            ("VMware ESXi 7.0.3 build-21930508", "VMware ESXi", "7.0", "2025-10-02"),
            ("FreeBSD 13.2-RELEASE-p4", "FreeBSD", "13.2", "2024-06-30"),
            ("macOS 12.7", "macOS", "12", "2024-09-16"),
            ("macOS Big Sur", "macOS", "11", "2023-09-26"),
            ("macOS Golden Gate", "macOS", "27", "2029-09-15"),
            ("macOS Monterey 12.7.4", "macOS", "12", "2024-09-16"),
            ("Mac OS X 10.11.6", "macOS", "10.11", "2018-12-01"),
            ("Microsoft Windows Server 2019 Standard", "Windows Server", "2019", "2029-01-09"),
            ("Windows Server 2012 R2", "Windows Server", "2012 R2", "2023-10-10"),
            (
                "Microsoft® Windows Server® 2008 R2 Enterprise",
                "Windows Server",
                "2008 R2",
                "2020-01-14",
            ),
            ("Windows Server 2012 Datacenter", "Windows Server", "2012", "2023-10-10"),
            ("Windows Server, version 20H2", "Windows Server", "20H2", "2022-08-09"),
            ("Windows 10 Pro 22H2", "Windows", "10 22H2", "2025-10-14"),
            ("Microsoft Windows 10 Pro", "Windows", "10", "2025-10-14"),
            (
                "Microsoft Windows 10 Pro 10.0.19045 N/A Build 19045",
                "Windows",
                "10 22H2",
                "2025-10-14",
            ),
            ("Windows 11 Pro 23H2", "Windows", "11 23H2", "2025-11-11"),
            ("Windows 11 Enterprise, version 23H2", "Windows Enterprise", "11 23H2", "2026-11-10"),
            ("Windows 10 Enterprise LTSC 2021", "Windows LTSC", "10 2021", "2027-01-12"),
            ("Windows 8.1", "Windows", "8.1", "2023-01-10"),
            ("Windows 7 Professional 64-bit", "Windows", "7", "2020-01-14"),
        ] {
            check(name, None, system, version, until);
        }
        check("Ubuntu", Some("20.04"), "Ubuntu", "20.04", "2025-05-29");
        check("Debian GNU/Linux", Some("12 (bookworm)"), "Debian", "12", "2028-06-30");
        check("SLES", Some("12.5"), "SLES", "12 SP5", "2024-10-31");
        check("Microsoft Windows 11 Pro", Some("10.0.26100"), "Windows", "11 24H2", "2026-10-13");
        check("Microsoft Windows 11 Pro", Some("10.0.26300"), "Windows", "11 26H2", "2028-10-10");
        check("Windows Server 2019", Some("10.0.17763"), "Windows Server", "2019", "2029-01-09");
    }

    #[test]
    fn what_is_unknown_is_not_derived() {
        for (name, version) in [
            ("", None),
            ("Cisco IOS", None),
            ("Cisco IOS 15.2", None),
            ("Debian", None),
            ("Debian", Some("")),
            ("Debian GNU/Linux bookworm/sid", None),
            ("Debian-based appliance 12", None),
            ("Ubuntu 99.04", None),
            ("Ubuntu 20", None),
            ("Ubuntu Core 20", None),
            ("Not Ubuntu 20.04", None),
            ("Ubuntuish 20.04", None),
            ("RHEL 80", None),
            ("Fedora CoreOS 39", None),
            ("Fedora Rawhide", None),
            ("SUSE Linux Enterprise Server 15", None),
            ("SUSE Linux Enterprise Server for SAP Applications 15 SP5", None),
            ("openSUSE Tumbleweed", None),
            ("Alpine 3", None),
            ("FreeBSD 14", None),
            ("FreeBSD 14.0-CURRENT", None),
            ("macOS", None),
            ("macOS 10", None),
            ("Linux Mint Debian Edition 6", None),
            ("Windows", None),
            ("Windows 11 Pro", None),
            ("Windows", Some("10.0.17763")),
            ("Windows 10 IoT Enterprise 21H2", None),
            ("Windows 10 Enterprise LTSC", None),
            ("Windows Server", Some("10.0.17763")),
            ("Arista EOS", Some("4.28")),
        ] {
            assert_eq!(of(name, version), None, "{name} {version:?}");
        }
    }

    #[test]
    fn the_last_day_is_included() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let ubuntu = of("Ubuntu 20.04", None).unwrap();
        assert!(ubuntu.is_supported_at(at("2025-05-29T23:59:59Z")));
        assert!(!ubuntu.is_supported_at(at("2025-05-30T00:00:00Z")));
        let proxmox = of("Proxmox VE 9", None).unwrap();
        assert!(proxmox.is_supported_at(at("2100-01-01T00:00:00Z")));
    }
}
