//! Rows of `assets.csv`: the type and the facts of an asset.
//!
//! For each asset, 10 to 25 % of the facts are missing, as in inventories that are maintained by hand. Most values
//! comply with the rules, and some do not, so that every rule passes for some assets and fails for others.

use std::fmt::Write;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

use super::{Inventory, Tier};
use crate::random::Random;

/// Operating systems; true if the publisher still provides security updates at the end of 2026.
const SYSTEMS: [(&str, bool); 8] = [
    ("Debian GNU/Linux 12 (bookworm)", true),
    ("Debian GNU/Linux 13 (trixie)", true),
    ("Debian GNU/Linux 10 (buster)", false),
    ("Ubuntu 24.04.1 LTS", true),
    ("Ubuntu 22.04.5 LTS", true),
    ("Ubuntu 20.04.6 LTS", false),
    ("Rocky Linux 9.4 (Blue Onyx)", true),
    ("Microsoft Windows Server 2022 Standard", true),
];
/// Operating systems of switches; true if supported. The end-of-life table does not list them.
const SWITCH_SYSTEMS: [(&str, bool); 3] =
    [("Cisco IOS 15.2", false), ("Arista EOS 4.31", true), ("Junos 23.4", true)];
const SITES: [&str; 4] = ["fra1", "ams2", "lon1", "nyc3"];

/// Returns the header line with the column names.
pub(super) fn header() -> String {
    let mut line = String::from(
        "external_id,name,asset_type,environment,lifecycle_state,location,description,owner,tags",
    );
    for (key, _) in facts(DateTime::UNIX_EPOCH, Tier::Host, &mut Random::new(0)) {
        line.push_str(",attributes.");
        line.push_str(key);
    }
    line.push_str(",custom.cost_center,custom.serial\n");
    line
}

/// Appends the CSV line of an asset to `line`.
pub(super) fn push(inventory: &Inventory, number: usize, line: &mut String) {
    let mut random = Random::at(inventory.seed ^ 1, number);
    let tier = inventory.tier(number);
    let asset_type = match tier {
        Tier::Switch => "network_device",
        Tier::Host | Tier::Database => "host",
        Tier::Application => "service",
        Tier::LoadBalancer => "cloud_resource",
    };
    let environment = random.one_of(&["prod", "prod", "prod", "staging", "dev"]);
    let lifecycle = if random.chance(3) {
        random.one_of(&["provisioning", "maintenance", "retired"])
    } else {
        "active"
    };
    let site = random.one_of(&SITES);
    let rack = random.below(400);
    // Writing to a String cannot fail.
    let _ = write!(
        line,
        "{},{},{asset_type},{environment},{lifecycle},{site}-r{rack:03},",
        Inventory::external_id(number),
        inventory.name(number),
    );
    // Some cells contain commas, quotes or non-ASCII letters, to test the parser.
    line.push_str(match random.below(20) {
        0 => "\"Behind the door, second from the left\"",
        1 => "\"Called \"\"the old one\"\"\"",
        2 => "Für die Buchhaltung",
        _ => "Made by the load tests",
    });
    let _ = write!(line, ",,\"{},{site}\"", tier.name());
    let missing = 10 + random.below(16);
    for (_, value) in facts(inventory.at, tier, &mut random) {
        line.push(',');
        if !random.chance(missing) {
            line.push_str(&value);
        }
    }
    let _ = writeln!(line, ",cc-{:03},SN{:012}", random.below(200), random.below(999_999_999_999));
}

/// Returns all facts of an asset in column order; `push` omits some of them.
fn facts(at: DateTime<Utc>, tier: Tier, random: &mut Random) -> [(&'static str, String); 15] {
    let systems = if tier == Tier::Switch { &SWITCH_SYSTEMS[..] } else { &SYSTEMS[..] };
    let (system, is_supported) = random.one_of(systems);
    let mut days = |earliest_day: i64, range_days: usize| {
        let minutes = i64::try_from(random.below(range_days * 24 * 60)).unwrap_or_default();
        let time = at + TimeDelta::days(earliest_day) + TimeDelta::minutes(minutes);
        time.to_rfc3339_opts(SecondsFormat::Secs, true)
    };
    let last_backup_at = days(-9, 9);
    let tls_cert_expires_at = days(-10, 180);
    let last_patched_at = days(-40, 40);
    let mut is = |percent| random.chance(percent).to_string();
    [
        ("disk_encrypted", is(85)),
        ("encryption_in_transit", is(90)),
        ("edr_installed", is(70)),
        ("antivirus_installed", is(75)),
        ("has_default_credentials", is(3)),
        ("logging_enabled", is(92)),
        ("firewall_enabled", is(88)),
        (
            "password_max_age_days",
            random.one_of(&["30", "60", "90", "90", "180", "365"]).to_owned(),
        ),
        ("log_retention_days", random.one_of(&["7", "14", "30", "90", "90", "365"]).to_owned()),
        ("last_backup_at", last_backup_at),
        ("tls_cert_expires_at", tls_cert_expires_at),
        ("last_patched_at", last_patched_at),
        ("open_ports", ports(tier, random).to_owned()),
        ("os_supported", is_supported.to_string()),
        ("os_name", system.to_owned()),
    ]
}

/// Returns the open ports of an asset: usually those of its tier, but high-risk ports in 5 % of the cases.
fn ports(tier: Tier, random: &mut Random) -> &'static str {
    if random.chance(5) {
        return random.one_of(&["21 22", "22 23", "445 3389", "22 2323"]);
    }
    match tier {
        Tier::Switch => "22 161",
        Tier::Host => "22 9100",
        Tier::Database => "22 5432",
        Tier::Application => "22 8080",
        Tier::LoadBalancer => "80 443",
    }
}
