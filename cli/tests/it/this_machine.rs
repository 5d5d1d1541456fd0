//! `docker/this-machine` on simulated machines: folders with the files of `/proc`, `/sys`, `/etc` and `/var` that it
//! reads.
//!
//! Long, because each fact has a test, and each test builds its machine from files.

use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use chrono::TimeDelta;
use domain::{
    compliance::rule::{self, Builtin, Definition, Params},
    inventory::end_of_life,
};
use uuid::Uuid;

use crate::team::chrono_now;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docker/this-machine");
const ID: &str = "0123456789abcdef0123456789abcdef";

/// A folder that simulates the root of a machine, removed when dropped.
struct Machine(PathBuf);

impl Machine {
    fn new() -> Self {
        let machine = Self(env::temp_dir().join(format!("this-machine-{}", Uuid::now_v7())));
        machine.with("etc/machine-id", ID)
    }

    fn with(self, path: &str, text: &str) -> Self {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// Adds a process with a name.
    fn running(self, pid: u32, name: &str) -> Self {
        self.with(&format!("proc/{pid}/comm"), &format!("{name}\n"))
    }

    /// Adds a file system mounted from a block device.
    fn mounting(self, number: &str, point: &str, kind: &str, source: &str) -> Self {
        let path = self.0.join("proc/self/mountinfo");
        let known = fs::read_to_string(path).unwrap_or_default();
        let line = format!("27 1 {number} / {point} rw shared:1 - {kind} {source} rw\n");
        self.with("proc/self/mountinfo", &(known + &line))
    }

    /// Adds a block device, with the number that mounts use for it and the devices below it.
    fn device(self, number: &str, name: &str, mapped_by: &str, below: &[&str]) -> Self {
        let device = self.0.join("sys/class/block").join(name);
        for slave in below {
            fs::create_dir_all(device.join("slaves").join(slave)).unwrap();
        }
        let numbers = self.0.join("sys/dev/block");
        fs::create_dir_all(&numbers).unwrap();
        symlink(format!("../../devices/virtual/block/{name}"), numbers.join(number)).unwrap();
        self.with(&format!("sys/class/block/{name}/dm/uuid"), mapped_by)
    }

    fn output(&self, shell: &str) -> Output {
        let mut command = Command::new(shell);
        command.arg(SCRIPT).env("THIS_MACHINE_ROOT", &self.0).output().unwrap()
    }

    /// Runs the script in several shells, which must agree, and returns its cells by column.
    fn cells(&self) -> BTreeMap<String, String> {
        let answer: Vec<_> = ["sh", "dash", "bash"]
            .iter()
            .filter(|shell| Command::new(shell).args(["-c", ":"]).output().is_ok())
            .map(|shell| {
                let output = self.output(shell);
                assert!(output.status.success(), "{shell}: {output:?}");
                assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{shell}");
                String::from_utf8(output.stdout).unwrap()
            })
            .collect();
        assert!(answer.windows(2).all(|pair| pair[0] == pair[1]), "{answer:?}");
        let lines: Vec<_> = answer[0].lines().map(cells_of).collect();
        let [header, row] = &lines[..] else { panic!("not one row: {}", answer[0]) };
        assert_eq!(header.len(), row.len(), "{}", answer[0]);
        header.iter().cloned().zip(row.iter().cloned()).collect()
    }

    fn cell(&self, column: &str) -> String {
        self.cells().remove(column).unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Splits a line of CSV into cells.
fn cells_of(line: &str) -> Vec<String> {
    let (mut cells, mut is_quoted) = (vec![String::new()], false);
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if is_quoted && characters.next_if_eq(&'"').is_some() => {
                cells.last_mut().unwrap().push('"');
            }
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => cells.push(String::new()),
            other => cells.last_mut().unwrap().push(other),
        }
    }
    cells
}

/// Returns the built-in rules that a machine's row contains enough facts to assess.
fn assessed(cells: &BTreeMap<String, String>) -> Vec<&'static str> {
    let cell = |attribute: &str| {
        cells.get(&format!("attributes.{attribute}")).filter(|cell| !cell.is_empty())
    };
    let is_known = |read: &str| match read {
        // Support follows from the name of the system, which includes the version here.
        "attr.os_supported" | "attr.os_name" | "attr.os_version" => {
            cell("os_name").is_some_and(|name| end_of_life::release_by_name(name, None).is_some())
        }
        read => read.strip_prefix("attr.").is_some_and(|attribute| cell(attribute).is_some()),
    };
    let is_assessed = |builtin: &&Builtin| {
        let definition = &builtin.definition;
        let params = Params::declared(&definition.params).unwrap();
        let condition = Definition { evidence: BTreeMap::new(), ..definition.clone() };
        let checked = rule::compile(&condition, &params).unwrap();
        // Ownership is known for every asset.
        definition.condition.starts_with("has(") || checked.reads().all(is_known)
    };
    Builtin::all().iter().filter(is_assessed).map(|builtin| builtin.key.as_str()).collect()
}

fn tcp(sockets: &[&str]) -> String {
    let line =
        |socket: &&str| format!("   0: {socket} 00000000:0000 0A 00000000:00000000 00:00000000\n");
    let heading = String::from("  sl  local_address rem_address   st tx_queue rx_queue tr\n");
    heading + &sockets.iter().map(line).collect::<String>()
}

#[test]
fn a_machine_is_one_row_of_what_can_be_told() {
    let machine = Machine::new()
        .with("etc/os-release", "NAME=\"Debian\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n")
        .with("proc/sys/kernel/hostname", "billing-db-1\n")
        .with("proc/sys/kernel/osrelease", "6.1.0-28-amd64\n")
        .with("proc/net/tcp", &tcp(&["00000000:1538", "00000000:0016"]))
        .device("253:0", "dm-0", "CRYPT-LUKS2-0-x", &["sda3"])
        .mounting("253:0", "/", "ext4", "/dev/mapper/root")
        .with("etc/ufw/ufw.conf", "ENABLED=yes\n")
        .with("var/log/dpkg.log", "2026-05-09 07:29:30 upgrade libc6:amd64 1 2\n2026-05-10 07:29:30 install vim:amd64 <none> 1\n")
        .with("etc/login.defs", "# PASS_MAX_DAYS 1\nPASS_MAX_DAYS\t90\n")
        .with("etc/logrotate.conf", "weekly\nrotate 4\n")
        .with("etc/logrotate.d/rsyslog", "/var/log/syslog\n{\n\trotate 8\n\tweekly\n}\n")
        .running(1, "systemd")
        .running(2, "rsyslogd")
        .running(3, "clamd")
        .running(4, "falcon-sensor");
    let mut cells = machine.cells();
    // dpkg writes local time, which here is that of the machine that runs the tests.
    let patched = cells.remove("attributes.last_patched_at").unwrap();
    assert!(patched.starts_with("2026-05-0") && patched.ends_with('Z'), "{patched}");
    assert!(cells.remove("external_id").unwrap().starts_with("machine:"));
    let cells: Vec<_> =
        cells.iter().map(|(column, cell)| (column.as_str(), cell.as_str())).collect();
    assert_eq!(
        cells,
        [
            ("asset_type", "host"),
            ("attributes.antivirus_installed", "true"),
            ("attributes.disk_encrypted", "true"),
            ("attributes.edr_installed", "true"),
            ("attributes.firewall_enabled", "true"),
            ("attributes.has_default_credentials", ""),
            ("attributes.kernel_version", "6.1.0-28-amd64"),
            ("attributes.log_retention_days", "56"),
            ("attributes.logging_enabled", "true"),
            ("attributes.open_ports", "22 5432"),
            ("attributes.os_name", "Debian GNU/Linux 12 (bookworm)"),
            ("attributes.password_max_age_days", "90"),
            ("attributes.tls_cert_expires_at", ""),
            ("name", "billing-db-1"),
        ]
    );
}

#[test]
fn a_plain_server_without_agents_says_enough_for_eight_rules() {
    let machine = Machine::new()
        .with("etc/os-release", "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n")
        .with("proc/net/tcp", &tcp(&["00000000:0016"]))
        .device("8:1", "sda1", "", &[])
        .mounting("8:1", "/", "ext4", "/dev/sda1")
        .with("var/log/dpkg.log", "2026-05-09 07:29:30 upgrade libc6:amd64 1 2\n")
        .with("etc/login.defs", "PASS_MAX_DAYS\t99999\n")
        .with("etc/shadow", "root:*:20000:0:99999:7:::\ndebian:!:20000:0:99999:7:::\n")
        .running(1, "systemd")
        .running(2, "systemd-journal");
    assert_eq!(
        assessed(&machine.cells()),
        [
            "disk-encryption",
            "no-default-credentials",
            "password-max-age",
            "has-owner",
            "logging-enabled",
            "no-high-risk-open-ports",
            "patch-age",
            "os-supported",
        ]
    );
}

#[test]
fn passwords_are_told_only_where_none_could_be_a_vendors_or_one_is() {
    // Hashes of the passwords `raspberry` and `something`.
    const RASPBERRY: &str = "$6$abcdefgh$4o4.L3tiGL1RD7BsjaaWYcCVs87zOlvZK7S6SXQETuFMA2ELLDwmf3YDHidZ3I4E/fXmmOOWhAJHUSMf.eA6c1";
    const SOMETHING: &str = "$6$abcdefgh$XaEuEzr1uz0JsqHkyoGlfM0N5gDdMESqOgRbOBW9RZNRpKLAR9aYlArl1zsikSh0pGFKJPqRCdHIHoOygg/Z3.";
    let check = |accounts: &[(&str, &str)], expected: &str| {
        let line = |(name, hash): &(&str, &str)| format!("{name}:{hash}:20000:0:99999:7:::\n");
        let shadow: String = accounts.iter().map(line).collect();
        let machine = Machine::new().with("etc/shadow", &shadow);
        assert_eq!(machine.cell("attributes.has_default_credentials"), expected, "{shadow}");
    };
    let locked = format!("!{RASPBERRY}");
    check(&[("root", "*"), ("pi", "!"), ("sshd", "!*")], "false");
    check(&[("root", "*"), ("pi", &locked)], "false");
    check(&[("root", "")], "true");
    check(&[("root", "*"), ("pi", SOMETHING)], "");
    check(&[("root", "*"), ("ada", RASPBERRY)], "");
    if Command::new("perl").arg("-v").output().is_ok() {
        check(&[("root", "*"), ("pi", RASPBERRY)], "true");
    }
}

#[test]
fn the_certificate_that_expires_first_counts() {
    let certificate = |days: &str| {
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        openssl.args(["-nodes", "-keyout", "/dev/null", "-subj", "/CN=a.test", "-days", days]);
        String::from_utf8(openssl.output().unwrap().stdout).unwrap()
    };
    let machine = |sockets: &[&str]| {
        Machine::new()
            .with("proc/net/tcp", &tcp(sockets))
            .with("this-machine.443.pem", &certificate("300"))
            .with("this-machine.993.pem", &certificate("20"))
            .with("this-machine.80.pem", &certificate("2"))
    };
    let expires = |sockets: &[&str]| machine(sockets).cell("attributes.tls_cert_expires_at");
    let in_days = |days| (chrono_now() + TimeDelta::days(days)).format("%Y-%m-%d").to_string();
    let [https, imaps, http] = ["00000000:01BB", "00000000:03E1", "00000000:0050"];
    assert_eq!(expires(&[https, http])[..10], in_days(300));
    assert_eq!(expires(&[https, imaps])[..10], in_days(20));
    assert_eq!(expires(&[http]), "");
}

#[test]
fn what_cannot_be_told_is_an_empty_cell() {
    let cells = Machine::new().cells();
    for (column, cell) in &cells {
        let is_told = [
            "external_id",
            "name",
            "asset_type",
            "attributes.os_name",
            "attributes.kernel_version",
        ]
        .contains(&column.as_str());
        assert_eq!(cell.is_empty(), !is_told, "{column}: {cell:?}");
    }
}

#[test]
fn the_machines_id_is_known_again_but_not_told() {
    let (one, other) = (Machine::new().cell("external_id"), Machine::new().cell("external_id"));
    assert_eq!(one, other);
    assert!(!one.contains(&ID[..8]), "{one}");
    let another = Machine::new().with("etc/machine-id", "f123456789abcdef0123456789abcdef");
    assert_ne!(another.cell("external_id"), one);
}

#[test]
fn without_an_id_it_says_how_to_get_one() {
    let machine = Machine::new().with("etc/machine-id", "");
    let output = machine.output("sh");
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let answer = String::from_utf8(output.stderr).unwrap();
    assert!(
        answer.contains("systemd-machine-id-setup") && answer.contains("--external-id"),
        "{answer}"
    );
    let mut command = Command::new("sh");
    let given =
        command.args([SCRIPT, "--external-id", "desk:7"]).env("THIS_MACHINE_ROOT", &machine.0);
    let row = String::from_utf8(given.output().unwrap().stdout).unwrap();
    assert!(row.lines().nth(1).unwrap().starts_with("desk:7,"), "{row}");
}

#[test]
fn only_ports_that_others_can_reach_are_open() {
    let check = |tcp4: &[&str], tcp6: &[&str], expected: &str| {
        let machine =
            Machine::new().with("proc/net/tcp", &tcp(tcp4)).with("proc/net/tcp6", &tcp(tcp6));
        assert_eq!(machine.cell("attributes.open_ports"), expected, "{tcp4:?} {tcp6:?}");
    };
    let (any, local) = ("0".repeat(32), format!("{}01000000", "0".repeat(24)));
    let mapped = format!("{}FFFF00000100007F", "0".repeat(16));
    check(&["00000000:01BB", "0B00000A:0016"], &[&format!("{any}:0016")], "22 443");
    check(
        &["0100007F:1538", "3500007F:0035"],
        &[&format!("{local}:1538"), &format!("{mapped}:1F90")],
        "[]",
    );
    check(&[], &[&format!("{any}:0050")], "80");
}

#[test]
fn a_disk_counts_as_encrypted_with_all_that_it_lies_on() {
    let crypt = || Machine::new().device("253:0", "dm-0", "CRYPT-LUKS2-0-x", &["sda3"]);
    let check = |machine: Machine, expected: &str, what: &str| {
        assert_eq!(machine.cell("attributes.disk_encrypted"), expected, "{what}");
    };
    let volume = || {
        crypt().device("253:1", "dm-1", "LVM-x", &["dm-0"]).mounting(
            "253:1",
            "/",
            "ext4",
            "/dev/mapper/vg-root",
        )
    };
    check(volume(), "true", "a volume on an encrypted partition");
    let boot =
        volume().device("8:1", "sda1", "", &[]).mounting("8:1", "/boot", "ext4", "/dev/sda1");
    check(boot, "true", "what the system is started from does not count");
    let plain = volume().device("8:2", "sdb1", "", &[]).mounting("8:2", "/srv", "xfs", "/dev/sdb1");
    check(plain, "false", "another disk is plain");
    let mirror = crypt()
        .device("8:3", "sdc1", "", &[])
        .device("9:0", "md0", "", &["dm-0", "sdc1"])
        .mounting("9:0", "/", "ext4", "/dev/md0");
    check(mirror, "false", "one half of a mirror is plain");
    let verity = Machine::new()
        .device("8:4", "sda4", "", &[])
        .device("253:9", "dm-9", "CRYPT-VERITY-x", &["sda4"])
        .mounting("253:9", "/", "ext4", "/dev/mapper/root");
    check(verity, "false", "verity only checks");
    check(Machine::new().mounting("0:30", "/", "overlay", "overlay"), "", "a container");
    check(volume().mounting("0:31", "/", "zfs", "pool/root"), "", "a root that is no device");
    check(
        Machine::new().mounting("8:9", "/", "ext4", "/dev/sdz"),
        "",
        "a device that is not there",
    );
}

#[test]
fn a_firewall_is_what_drops_all_that_no_rule_lets_in() {
    let check = |tool: &str, rules: &str, expected: &str| {
        let machine = Machine::new().with(&format!("this-machine.{tool}"), rules);
        assert_eq!(machine.cell("attributes.firewall_enabled"), expected, "{tool}: {rules}");
    };
    let nft = |policy: &str, rules: &str, expected: &str| {
        let chain = format!(
            "table inet filter {{\n\tchain input {{\n\t\ttype filter hook input priority filter; policy {policy};\n{rules}\t}}\n\
             \tchain forward {{\n\t\ttype filter hook forward priority filter; policy drop;\n\t\tdrop\n\t}}\n}}\n"
        );
        check("nft", &chain, expected);
    };
    nft("drop", "\t\ttcp dport 22 accept\n", "true");
    nft("accept", "\t\ttcp dport { 22, 443 } accept\n\t\tdrop\n", "true");
    nft(
        "accept",
        "\t\ttcp dport { 22, 443 } accept\n\t\tcounter packets 4 bytes 240 reject with icmpx admin-prohibited\n",
        "true",
    );
    nft("accept", "\t\tdrop comment \"the rest\"\n", "true");
    nft("accept", "\t\tip saddr 203.0.113.9 drop\n", "");
    nft("accept", "\t\tip saddr @f2b { 22 } reject with icmp port-unreachable\n", "");
    nft("accept", "\t\tjump ufw-input\n", "");
    nft("accept", "\t\taccept\n\t\tdrop\n", "false");
    nft("accept", "\t\ttcp dport { 22, 443 } accept\n", "false");
    check("nft", "", "false");
    check("iptables", "-P INPUT DROP\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n", "true");
    check("iptables", "-P INPUT ACCEPT\n-A INPUT -i lo -j ACCEPT\n-A INPUT -j DROP\n", "true");
    check(
        "iptables",
        "-P INPUT ACCEPT\n-A INPUT -j REJECT --reject-with icmp-host-prohibited\n",
        "true",
    );
    check("iptables", "-P INPUT ACCEPT\n-A INPUT -s 203.0.113.9/32 -j DROP\n", "");
    check("iptables", "-P INPUT ACCEPT\n-A INPUT -j f2b-sshd\n", "");
    check("iptables", "-P INPUT DROP\n-A INPUT -j ACCEPT\n", "");
    check("ip6tables", "-P INPUT ACCEPT\n", "false");
    assert_eq!(Machine::new().cell("attributes.firewall_enabled"), "");
}

#[test]
fn logs_are_kept_as_long_as_what_goes_first() {
    let check = |machine: Machine, expected: &str| {
        assert_eq!(machine.cell("attributes.log_retention_days"), expected);
    };
    let rotated = |rules: &str| {
        Machine::new()
            .running(2, "rsyslogd")
            .with("etc/logrotate.conf", "weekly\nrotate 4\n")
            .with("etc/logrotate.d/rsyslog", rules)
    };
    check(
        rotated(
            "/var/log/syslog\n{\n rotate 7\n daily\n}\n/var/log/mail.log\n{\n rotate 4\n weekly\n}\n",
        ),
        "7",
    );
    check(rotated("/var/log/messages {\n missingok\n}\n"), "28");
    check(rotated("/a {\n rotate 9\n monthly\n}\n/b {\n}\n"), "28");
    let journal = |conf: &str| {
        Machine::new().with("var/log/journal/x", "").with("etc/systemd/journald.conf", conf)
    };
    check(journal("[Journal]\nMaxRetentionSec=2week\n"), "14");
    check(journal("[Journal]\n#MaxRetentionSec=0\n"), "");
    check(Machine::new().with("etc/systemd/journald.conf", "MaxRetentionSec=90day\n"), "");
    // Without a configured retention, the age of the journal counts, if it is long enough.
    let archived = |days: i64| {
        let begins = (chrono_now() - TimeDelta::days(days)).timestamp_micros();
        let file = format!("var/log/journal/y/system@5f-0000000000000001-{begins:016x}.journal");
        journal("[Journal]\n").with(&file, "").with("var/log/journal/y/system.journal", "")
    };
    check(archived(100), "100");
    check(archived(29), "");
    check(archived(100).with("etc/systemd/journald.conf", "MaxRetentionSec=2week\n"), "14");
}

#[test]
fn a_machine_without_a_logger_is_said_to_have_none_but_for_a_container() {
    let bare = || Machine::new().running(1, "init").running(9, "nginx");
    assert_eq!(bare().cell("attributes.logging_enabled"), "false");
    assert_eq!(bare().running(10, "systemd-journal").cell("attributes.logging_enabled"), "true");
    assert_eq!(bare().with(".dockerenv", "").cell("attributes.logging_enabled"), "");
}

#[test]
fn cells_hold_what_a_name_says_and_nothing_that_calculates() {
    let name = |text: &str| {
        let machine = Machine::new().with("etc/os-release", &format!("PRETTY_NAME={text}\n"));
        machine.cell("attributes.os_name")
    };
    assert_eq!(name(r#""My \"own\" Linux, 2nd \$""#), r#"My "own" Linux, 2nd $"#);
    assert_eq!(name("'Plain'"), "Plain");
    assert_eq!(name("\"=1+1\""), "'=1+1");
    assert_eq!(name("\"Größe\""), "Größe");
}

#[test]
fn the_script_may_be_run_as_it_is() {
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(Path::new(SCRIPT)).unwrap().permissions().mode() & 0o111, 0o111);
}
