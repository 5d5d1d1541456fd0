//! Dates until which releases of operating systems get security updates: the table `end_of_life.csv`, and the search
//! for a release by the names that inventories contain.
//!
//! The date of a release is the last day on which all users get security updates, in UTC; the day itself is included.
//! Debian counts with its free LTS but without the paid ELTS, and Ubuntu with standard support but without ESM. Support
//! that must be bought never counts. If editions of a Windows release have different dates, the edition with the longer
//! support is a separate operating system in the table, e.g. `Windows Enterprise`. If a publisher has announced no
//! date, the release has none. Apple announces no dates: a macOS release counts as supported until the third next
//! release, one of which appears each September.
//!
//! A release is found or is unknown, but never guessed. Unknown are operating systems and versions that the table does
//! not list, and names with an unexpected word before the version. Only those components of a version are compared that
//! the table lists: 20.04.6 is Ubuntu 20.04, and 8.9 is RHEL 8. A version without its feature update or service pack
//! (`Windows 10`, `SLES 12`) is known only if all of them have reached their end; the latest of their dates then
//! counts.
//!
//! The table is generated: `end_of_life/generate` writes it from a snapshot of published data, and a test checks that
//! the table matches the snapshot. The snapshot names the source of each row and the day on which the source was read.
//! Releases that appeared after the snapshot are unknown until the snapshot is refreshed.
//!
//! Long, because each publisher spells names differently, and the spellings are listed beside their tests.

use std::{collections::HashMap, sync::LazyLock};

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};

const TABLE: &str = include_str!("end_of_life.csv");

/// A release of an operating system that the table lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OsRelease {
    /// Name of the operating system, e.g. `Debian`.
    pub system: &'static str,
    /// Version, with the components that the table lists, e.g. `20.04` or `2012 R2`.
    pub version: &'static str,
    /// Last day with security updates, in UTC; `None` if no end has been announced.
    pub supported_until: Option<NaiveDate>,
}

impl OsRelease {
    /// Returns true if the release gets security updates at this time.
    pub fn is_supported_at(&self, now: DateTime<Utc>) -> bool {
        self.ends_at().is_none_or(|end| now < end)
    }

    /// Returns the first time without security updates: midnight UTC after the last day. `None` if no end has been
    /// announced.
    pub fn ends_at(&self) -> Option<DateTime<Utc>> {
        let after = self.supported_until?.succ_opt()?;
        Some(after.and_time(NaiveTime::MIN).and_utc())
    }
}

/// Returns the release from which an asset's attribute `os_supported` is derived. `None` if the attribute has a stored
/// value (`is_set`), or if the release is unknown.
pub(crate) fn find_release(
    is_set: bool,
    os_name: Option<&str>,
    os_version: Option<&str>,
) -> Option<OsRelease> {
    if is_set { None } else { release_by_name(os_name?, os_version) }
}

/// Returns the release with a name such as `Ubuntu 20.04.6 LTS` or `Microsoft Windows Server 2019 Standard`; `None` if
/// the release is unknown. The version is in `os_name` or in `os_version`.
pub fn release_by_name(os_name: &str, os_version: Option<&str>) -> Option<OsRelease> {
    let text = format!("{os_name} {}", os_version.unwrap_or_default()).to_lowercase();
    let words: Vec<&str> = text.split(is_separator).filter(|word| !word.is_empty()).collect();
    let (system, rest) = NAME_PREFIXES.iter().find_map(|(name, system)| {
        let name: Vec<_> = name.split(' ').collect();
        Some((*system, words.strip_prefix(&name[..])?))
    })?;
    if rest.iter().any(|word| EXCLUDED_WORDS.contains(word)) {
        return None;
    }
    let edition = EDITIONS
        .iter()
        .find(|(name, word, _)| *name == system && rest.contains(word))
        .map_or(system, |(_, _, edition)| edition);
    let versions = BY_SYSTEM.get(edition)?;
    let first = rest.iter().position(|word| !IGNORED_WORDS.contains(word))?;
    let (version, following) = (without_v_prefix(rest[first]), &rest[first + 1..]);
    let by_two_words =
        following.iter().find_map(|word| versions.get(format!("{version} {word}").as_str()));
    let by_one_word = || match edition {
        // All current Windows and Windows Server releases report a version that begins with 10.0, so the version is
        // not shortened.
        WINDOWS | WINDOWS_ENTERPRISE | WINDOWS_LTSC | WINDOWS_SERVER => versions.get(version),
        _ => with_fewer_components(version).find_map(|version| versions.get(version)),
    };
    by_two_words.or_else(by_one_word).copied()
}

const WINDOWS: &str = "Windows";
const WINDOWS_ENTERPRISE: &str = "Windows Enterprise";
const WINDOWS_LTSC: &str = "Windows LTSC";
const WINDOWS_SERVER: &str = "Windows Server";

/// Beginnings of names, in lower case, each with the operating system's name in the table. A longer beginning precedes
/// its own beginnings.
const NAME_PREFIXES: [(&str, &str); 40] = [
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

/// Editions that are separate operating systems in the table: the operating system, a word after its name, and the
/// edition. The first match counts.
const EDITIONS: [(&str, &str, &str); 5] = [
    ("CentOS Linux", "stream", "CentOS Stream"),
    (WINDOWS, "ltsc", WINDOWS_LTSC),
    (WINDOWS, "ltsb", WINDOWS_LTSC),
    (WINDOWS, "enterprise", WINDOWS_ENTERPRISE),
    (WINDOWS, "education", WINDOWS_ENTERPRISE),
];

/// Words between name and version that are ignored.
const IGNORED_WORDS: [&str; 12] = [
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

/// Words of names that the table does not cover, such as pre-releases and variants for devices.
const EXCLUDED_WORDS: [&str; 10] = [
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

/// Returns true if the character separates words: it is not a letter, a digit or a dot. Dots are part of versions.
fn is_separator(character: char) -> bool {
    !character.is_alphanumeric() && character != '.'
}

/// Returns a version such as `v3.18` without the leading `v`.
fn without_v_prefix(word: &str) -> &str {
    let bare = word.strip_prefix('v').unwrap_or(word);
    if bare.starts_with(|first: char| first.is_ascii_digit()) { bare } else { word }
}

/// Returns the version, then repeatedly the version without its last component: `8.9.1`, `8.9`, `8`.
fn with_fewer_components(version: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(version), |version| Some(version.rsplit_once('.')?.0))
}

type Versions = HashMap<String, OsRelease>;

/// Rows of the table by operating system, then by version and by the aliases of the version, in lower case.
static BY_SYSTEM: LazyLock<HashMap<&'static str, Versions>> = LazyLock::new(|| {
    let mut systems: HashMap<_, Versions> = HashMap::new();
    for line in lines() {
        let (row, words) = parse_row(line).expect("the tests read every row of the table");
        let versions = systems.entry(row.system).or_default();
        versions.extend(words.map(|word| (word.to_lowercase(), row)));
    }
    systems
});

/// Returns the lines of the table with rows, without the comments and the column names.
fn lines() -> impl Iterator<Item = &'static str> {
    TABLE.lines().skip_while(|line| line.starts_with('#')).skip(1)
}

/// Parses a line of the table into a release and its aliases. No cell contains a comma, so cells are not quoted. The
/// aliases in the last cell are separated by `|`.
fn parse_row(
    line: &'static str,
) -> Option<(OsRelease, impl Iterator<Item = &'static str> + use<>)> {
    let cells: Vec<_> = line.split(',').collect();
    let [system, version, until, aliases] = cells[..] else { return None };
    let supported_until = match until {
        "" => None,
        day => Some(day.parse().ok()?),
    };
    let words = std::iter::once(version).chain(aliases.split('|')).filter(|word| !word.is_empty());
    Some((OsRelease { system, version, supported_until }, words))
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
            let (row, words) = parse_row(line).unwrap_or_else(|| panic!("{line}"));
            assert!(
                NAME_PREFIXES.iter().any(|(_, system)| *system == row.system)
                    || EDITIONS.iter().any(|(_, _, edition)| *edition == row.system),
                "{line}: no name leads here"
            );
            for word in words {
                assert!(seen.insert((row.system, word.to_lowercase())), "{line}: {word} again");
            }
            rows += 1;
        }
        // The first three lines are the comments and the column names.
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
        for (index, (name, _)) in NAME_PREFIXES.iter().enumerate() {
            let earlier = NAME_PREFIXES[..index]
                .iter()
                .find(|(earlier, _)| name.starts_with(&format!("{earlier} ")));
            assert_eq!(earlier, None, "{name} is never reached");
        }
    }

    #[test]
    fn systems_are_recognised_as_inventories_spell_them() {
        let check =
            |os_name: &str, os_version: Option<&str>, system: &str, version: &str, until: &str| {
                let found = release_by_name(os_name, os_version)
                    .unwrap_or_else(|| panic!("{os_name} {os_version:?}"));
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
            assert_eq!(release_by_name(name, version), None, "{name} {version:?}");
        }
    }

    #[test]
    fn the_last_day_is_included() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let ubuntu = release_by_name("Ubuntu 20.04", None).unwrap();
        assert!(ubuntu.is_supported_at(at("2025-05-29T23:59:59Z")));
        assert!(!ubuntu.is_supported_at(at("2025-05-30T00:00:00Z")));
        let proxmox = release_by_name("Proxmox VE 9", None).unwrap();
        assert!(proxmox.is_supported_at(at("2100-01-01T00:00:00Z")));
    }
}
