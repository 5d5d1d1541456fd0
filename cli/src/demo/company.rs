//! Data of the demo organization: people, assets and facts about the assets.
//!
//! Every rule passes on some assets and fails on others. Some facts are missing, as in real inventories. Times are
//! relative to the time of loading; some verdicts change a few days later.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use domain::inventory::{
    asset::{
        AssetType::{self, CloudResource, Host, NetworkDevice, Service, SoftwareLicense},
        Environment::{self, Dev, Prod, Staging},
        LifecycleState::{self, Active, Maintenance, Provisioning, Retired},
    },
    dependency::Criticality::{self, Critical, High, Low, Medium},
};
use serde_json::{Map, Value, json};

/// People with a sign-in: local part of the e-mail address, which is also the role; display name.
pub(super) const PEOPLE: [(&str, &str); 3] =
    [("admin", "Ada Admin"), ("operator", "Otto Operator"), ("viewer", "Vera Viewer")];

/// People without a sign-in, as owners and holders of assets: local part of the e-mail address, display name, role.
pub(super) const COLLEAGUES: [(&str, &str, &str); 3] = [
    ("nils", "Nils Network", "operator"),
    ("priya", "Priya Platform", "operator"),
    ("felix", "Felix Finance", "viewer"),
];

/// People with multi-factor authentication, by short name.
pub(super) const WITH_MFA: [&str; 2] = ["nils", "priya"];

/// A waiver (time-limited exception): asset, waived rule, reason, duration in days.
pub(super) const WAIVER: (&str, &str, &str, i64) = (
    "billing-db-1",
    "os-supported",
    "Moves to a new machine in the next quarter; until then only billing-app-1 reaches it.",
    90,
);

/// Tags of the demo: name and colour.
pub(super) const TAGS: [(&str, &str); 7] = [
    ("customer-facing", "#2563eb"),
    ("personal-data", "#dc2626"),
    ("payment", "#d97706"),
    ("network", "#0891b2"),
    ("backup", "#059669"),
    ("office", "#7c3aed"),
    ("build", "#64748b"),
];

/// Dependencies: dependent asset, asset that it depends on, kind, criticality.
#[rustfmt::skip] // One line per edge keeps the table readable.
pub(super) const DEPENDENCIES: [(&str, &str, &str, Criticality); 22] = [
    ("shop", "shop-web-1", "runs on", High),
    ("shop", "shop-web-2", "runs on", High),
    ("shop", "dns-zone", "name", Critical),
    ("shop-web-1", "shop-db-1", "database", Critical),
    ("shop-web-2", "shop-db-1", "database", Critical),
    ("shop-web-1", "assets-bucket", "pictures", Medium),
    ("shop-web-2", "assets-bucket", "pictures", Medium),
    ("shop-db-2", "shop-db-1", "replication", Medium),
    ("billing", "billing-app-1", "runs on", Critical),
    ("billing", "mail", "sends invoices", Low),
    ("billing-app-1", "billing-db-1", "database", Critical),
    ("mail", "mail-1", "runs on", Critical),
    ("intranet", "files-1", "documents", High),
    ("backup-1", "backup-bucket", "copies", High),
    ("backup-1", "backup-software", "licence", Medium),
    ("shop-web-1", "fra1-core-sw-1", "network", High),
    ("shop-web-2", "fra1-core-sw-2", "network", High),
    ("shop-db-1", "fra1-core-sw-1", "network", Critical),
    ("billing-app-1", "fra1-core-sw-2", "network", High),
    ("mail-1", "fra1-core-sw-1", "network", High),
    ("fra1-core-sw-1", "fra1-fw-1", "uplink", Critical),
    ("fra1-core-sw-2", "fra1-fw-1", "uplink", Critical),
];

/// Custodies (check-out records): asset, holder, note and days since the check-out; note and days since the check-in,
/// if the asset was checked in.
#[rustfmt::skip]
pub(super) const CUSTODIES: [CustodyRow; 4] = [
    ("berlin-ap-1", "nils", "New antenna", 12, Some(("Mounted again", 11))),
    ("berlin-ap-1", "nils", "Resets itself every night", 2, None),
    ("files-1", "operator", "A disk is swapped", 40, Some(("Rebuilt", 38))),
    ("ide-licences", "priya", "For the new colleagues", 5, None),
];

/// Type of a row of [`CUSTODIES`].
pub(super) type CustodyRow =
    (&'static str, &'static str, &'static str, i64, Option<(&'static str, i64)>);

/// Input for the creation of a demo asset.
pub(super) struct DemoAsset {
    /// Name, unique among the assets.
    pub(super) name: &'static str,
    /// Type of the asset in the inventory.
    pub(super) asset_type: AssetType,
    /// Environment in which the asset is used.
    pub(super) environment: Environment,
    /// Lifecycle state of the asset.
    pub(super) lifecycle_state: LifecycleState,
    /// Rack, site or region of the asset.
    pub(super) location: &'static str,
    /// Description shown in the inventory.
    pub(super) description: &'static str,
    /// Short name of the owner; empty for no owner.
    pub(super) owner: &'static str,
    /// Names of the tags, separated by spaces.
    pub(super) tags: &'static str,
    /// Facts of today, by attribute key.
    pub(super) attributes: Value,
}

/// Returns all assets of the demo. Times in their facts are relative to `now`.
#[rustfmt::skip] // One line per asset keeps the table readable.
pub(super) fn demo_assets(now: DateTime<Utc>) -> Vec<DemoAsset> {
    let days = |days: i64| (now + TimeDelta::days(days)).to_rfc3339_opts(SecondsFormat::Secs, true);
    // Facts of a compliant machine. The last argument replaces facts of one asset; null removes a fact.
    let machine = |os: &str, open_ports: &[u16], overrides: Value| {
        let base_facts = json!({
            "os_name": os, "open_ports": open_ports, "disk_encrypted": true, "encryption_in_transit": true,
            "edr_installed": true, "antivirus_installed": true, "has_default_credentials": false,
            "password_max_age_days": 90, "logging_enabled": true, "log_retention_days": 90, "firewall_enabled": true,
            "last_backup_at": days(-1), "last_patched_at": days(-6),
        });
        with(base_facts, overrides)
    };
    let device = |os: &str, overrides: Value| {
        let base_facts = json!({
            "os_name": os, "os_supported": true, "has_default_credentials": false, "encryption_in_transit": true,
            "logging_enabled": true, "log_retention_days": 30, "open_ports": [22], "last_patched_at": days(-20),
            "last_backup_at": days(-3),
        });
        with(base_facts, overrides)
    };
    let service = |certificate: i64, overrides: Value| {
        let base_facts = json!({ "encryption_in_transit": true, "logging_enabled": true, "tls_cert_expires_at": days(certificate) });
        with(base_facts, overrides)
    };
    let row = |(name, asset_type, environment, lifecycle_state, location, description): AssetBasics, owner, tags, attributes| {
        DemoAsset { name, asset_type, environment, lifecycle_state, location, description, owner, tags, attributes }
    };
    vec![
        row(("shop-web-1", Host, Prod, Active, "fra1-r03", "Web shop, front end"), "priya", "customer-facing", machine("Debian GNU/Linux 12 (bookworm)", &[22, 443], json!({ "tls_cert_expires_at": days(75) }))),
        row(("shop-web-2", Host, Prod, Active, "fra1-r04", "Web shop, front end"), "priya", "customer-facing", machine("Debian GNU/Linux 12 (bookworm)", &[22, 443], json!({ "tls_cert_expires_at": days(75), "last_patched_at": days(-28) }))),
        row(("shop-db-1", Host, Prod, Active, "fra1-r03", "Orders and customers, primary"), "priya", "personal-data payment", machine("Debian GNU/Linux 12 (bookworm)", &[22, 5432], json!({}))),
        row(("shop-db-2", Host, Prod, Active, "fra1-r04", "Orders and customers, replica"), "priya", "personal-data payment", machine("Debian GNU/Linux 12 (bookworm)", &[22, 5432], json!({ "disk_encrypted": false, "last_backup_at": null }))),
        row(("billing-app-1", Host, Prod, Active, "fra1-r05", "Invoices"), "operator", "payment", machine("Ubuntu 22.04.5 LTS", &[22, 8443], json!({ "edr_installed": false, "tls_cert_expires_at": days(12) }))),
        row(("billing-db-1", Host, Prod, Maintenance, "fra1-r05", "Invoices, database"), "operator", "payment personal-data", machine("Ubuntu 20.04.6 LTS", &[22, 3306], json!({ "last_patched_at": days(-190), "password_max_age_days": 365 }))),
        row(("mail-1", Host, Prod, Active, "fra1-r02", "Mail relay"), "operator", "personal-data", machine("Debian GNU/Linux 11 (bullseye)", &[22, 25, 587], json!({ "tls_cert_expires_at": days(33), "log_retention_days": 14 }))),
        row(("files-1", Host, Prod, Active, "office-berlin", "File share of the office"), "", "office personal-data", machine("Microsoft Windows Server 2019 Standard", &[445, 3389], json!({ "disk_encrypted": null, "antivirus_installed": false, "last_backup_at": days(-16) }))),
        row(("backup-1", Host, Prod, Active, "office-berlin", "Nightly backups"), "operator", "backup", machine("Debian GNU/Linux 12 (bookworm)", &[22], json!({ "last_backup_at": null, "edr_installed": null }))),
        row(("monitor-1", Host, Prod, Active, "fra1-r02", "Metrics and alerts"), "nils", "", machine("Debian GNU/Linux 13 (trixie)", &[22, 9090], json!({ "last_backup_at": days(-6) }))),
        row(("shop-staging-1", Host, Staging, Active, "fra1-r07", "Web shop, rehearsal"), "priya", "", machine("Debian GNU/Linux 12 (bookworm)", &[22, 443], json!({ "last_backup_at": null, "tls_cert_expires_at": days(-4), "edr_installed": null, "antivirus_installed": null }))),
        row(("billing-staging-1", Host, Staging, Active, "fra1-r07", "Invoices, rehearsal"), "", "", machine("Ubuntu 22.04.5 LTS", &[22, 8443], json!({ "last_backup_at": null, "firewall_enabled": false, "logging_enabled": null, "log_retention_days": null }))),
        row(("ci-runner-1", Host, Dev, Active, "fra1-r08", "Builds and tests"), "priya", "build", machine("Debian GNU/Linux 12 (bookworm)", &[22], json!({ "disk_encrypted": false, "logging_enabled": false, "log_retention_days": null, "last_backup_at": null, "antivirus_installed": null }))),
        row(("ci-runner-2", Host, Dev, Provisioning, "fra1-r08", "Builds and tests"), "priya", "build", json!({ "os_name": "Debian GNU/Linux 13 (trixie)", "open_ports": [22], "disk_encrypted": true })),
        row(("old-shop-1", Host, Prod, Retired, "fra1-r01", "The shop before 2023"), "", "", json!({ "os_name": "Debian GNU/Linux 9 (stretch)", "open_ports": [21, 22, 80], "disk_encrypted": false, "firewall_enabled": false })),
        row(("fra1-core-sw-1", NetworkDevice, Prod, Active, "fra1-r01", "Core switch"), "nils", "network", device("Arista EOS 4.31", json!({}))),
        row(("fra1-core-sw-2", NetworkDevice, Prod, Active, "fra1-r01", "Core switch"), "nils", "network", device("Arista EOS 4.31", json!({ "last_backup_at": null }))),
        row(("fra1-fw-1", NetworkDevice, Prod, Active, "fra1-r01", "Firewall"), "nils", "network", device("OPNsense 24.7", json!({ "firewall_enabled": true, "open_ports": [22, 443] }))),
        row(("berlin-sw-1", NetworkDevice, Prod, Active, "office-berlin", "Office switch"), "nils", "network office", device("Cisco IOS 12.2", json!({ "os_supported": false, "open_ports": [22, 23], "encryption_in_transit": false, "last_patched_at": null, "logging_enabled": null, "log_retention_days": null }))),
        row(("berlin-ap-1", NetworkDevice, Prod, Active, "office-berlin", "Wireless, ground floor"), "", "network office", json!({ "has_default_credentials": true, "open_ports": [80] })),
        row(("shop", Service, Prod, Active, "fra1", "What customers see"), "priya", "customer-facing payment", service(75, json!({}))),
        row(("billing", Service, Prod, Active, "fra1", "What accounting sees"), "felix", "payment", service(12, json!({}))),
        row(("mail", Service, Prod, Active, "fra1", "Mail of the company"), "operator", "personal-data", service(33, json!({}))),
        row(("intranet", Service, Prod, Active, "office-berlin", "Wiki and calendar"), "", "office", json!({ "encryption_in_transit": false })),
        row(("office-suite", SoftwareLicense, Prod, Active, "office-berlin", "42 seats, yearly"), "felix", "office", json!({})),
        row(("ide-licences", SoftwareLicense, Dev, Active, "office-berlin", "8 seats, yearly"), "felix", "build", json!({})),
        row(("backup-software", SoftwareLicense, Prod, Active, "office-berlin", "2 servers"), "felix", "backup", json!({})),
        row(("assets-bucket", CloudResource, Prod, Active, "eu-central-1", "Product pictures"), "priya", "customer-facing", json!({ "disk_encrypted": true, "encryption_in_transit": true, "logging_enabled": true, "log_retention_days": 365 })),
        row(("backup-bucket", CloudResource, Prod, Active, "eu-west-1", "Copies of the backups"), "operator", "backup personal-data", json!({ "disk_encrypted": true, "encryption_in_transit": true, "logging_enabled": false, "last_backup_at": days(-1) })),
        row(("dns-zone", CloudResource, Prod, Active, "global", "example.com and its subdomains"), "nils", "network customer-facing", json!({})),
    ]
}

/// Returns the facts that differ between yesterday and today. Since yesterday, two assets have failed and one was
/// fixed.
pub(super) fn yesterday() -> [(&'static str, Value); 3] {
    [
        ("billing-app-1", json!({ "edr_installed": true })),
        ("mail-1", json!({ "log_retention_days": 90 })),
        ("shop-web-1", json!({ "firewall_enabled": false })),
    ]
}

/// Name, type, environment, lifecycle state, location and description of an asset.
type AssetBasics =
    (&'static str, AssetType, Environment, LifecycleState, &'static str, &'static str);

/// Replaces facts by `overrides`, and removes facts that are null.
fn with(base_facts: Value, overrides: Value) -> Value {
    let mut facts = Map::new();
    for object in [base_facts, overrides] {
        let Value::Object(object) = object else { continue };
        facts.extend(object);
    }
    facts.retain(|_, value| !value.is_null());
    Value::Object(facts)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use domain::inventory::end_of_life;

    use super::*;

    fn now() -> DateTime<Utc> {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn there_are_thirty_things_of_every_type_each_with_its_own_name() {
        let demo_assets = demo_assets(now());
        assert_eq!(demo_assets.len(), 30);
        assert_eq!(
            demo_assets.iter().map(|demo_asset| demo_asset.name).collect::<HashSet<_>>().len(),
            30
        );
        for asset_type in AssetType::ALL {
            assert!(
                demo_assets.iter().any(|demo_asset| demo_asset.asset_type == *asset_type),
                "{asset_type:?}"
            );
        }
    }

    #[test]
    fn every_owner_works_there_and_everybody_and_every_tag_is_of_use() {
        let demo_assets = demo_assets(now());
        let people: HashSet<_> = PEOPLE
            .iter()
            .map(|(short_name, _)| *short_name)
            .chain(COLLEAGUES.iter().map(|(short_name, ..)| *short_name))
            .collect();
        assert_eq!(people.len(), 6);
        let owners: HashSet<_> = demo_assets
            .iter()
            .map(|demo_asset| demo_asset.owner)
            .filter(|short_name| !short_name.is_empty())
            .collect();
        assert!(owners.is_subset(&people), "{owners:?}");
        for (colleague, ..) in COLLEAGUES {
            assert!(owners.contains(colleague), "{colleague} owns nothing");
        }
        let used: HashSet<_> =
            demo_assets.iter().flat_map(|demo_asset| demo_asset.tags.split_whitespace()).collect();
        assert_eq!(used, TAGS.iter().map(|(name, _)| *name).collect());
    }

    #[test]
    fn what_is_needed_and_held_is_there() {
        let demo_assets = demo_assets(now());
        let names: HashSet<_> = demo_assets.iter().map(|demo_asset| demo_asset.name).collect();
        let mut seen = HashSet::new();
        for (source, target, ..) in DEPENDENCIES {
            assert!(names.contains(source) && names.contains(target), "{source} {target}");
            assert!(source != target && seen.insert((source, target)), "{source} {target}");
        }
        assert!(yesterday().iter().all(|(name, _)| names.contains(name)));
        assert!(names.contains(WAIVER.0));
        for (asset, short_name, _, since, returned) in CUSTODIES {
            assert!(names.contains(asset), "{asset}");
            assert!(
                PEOPLE.iter().any(|(known, _)| *known == short_name)
                    || COLLEAGUES.iter().any(|(known, ..)| *known == short_name)
            );
            assert!(returned.is_none_or(|(_, until)| until < since), "{asset}");
        }
    }

    /// Returns the expected verdict of each rule: `true` for a pass, `false` for a failure, `None` for `NOT_ASSESSED`.
    fn verdicts(demo_asset: &DemoAsset) -> [(&'static str, Option<bool>); 16] {
        let fact = |key: &str| demo_asset.attributes.get(key);
        let is = |key: &str| fact(key)?.as_bool();
        let number = |key: &str| fact(key)?.as_i64();
        let age = |key: &str| {
            let at: DateTime<Utc> = fact(key)?.as_str()?.parse().ok()?;
            Some((now() - at).num_days())
        };
        let ports = fact("open_ports").and_then(Value::as_array);
        let is_risky = |port: &Value| [21, 23, 445, 2323, 3389].contains(&port.as_u64().unwrap());
        let derived = || {
            Some(
                end_of_life::release_by_name(fact("os_name")?.as_str()?, None)?
                    .is_supported_at(now()),
            )
        };
        [
            ("disk-encryption", is("disk_encrypted")),
            ("encryption-in-transit", is("encryption_in_transit")),
            ("edr-present", is("edr_installed")),
            ("antivirus-present", is("antivirus_installed")),
            ("no-default-credentials", is("has_default_credentials").map(|has| !has)),
            ("password-max-age", number("password_max_age_days").map(|days| days <= 90)),
            ("has-owner", Some(!demo_asset.owner.is_empty())),
            (
                "owner-mfa",
                (!demo_asset.owner.is_empty()).then(|| WITH_MFA.contains(&demo_asset.owner)),
            ),
            ("logging-enabled", is("logging_enabled")),
            ("log-retention", number("log_retention_days").map(|days| days >= 30)),
            ("backup-recency", age("last_backup_at").map(|days| days <= 7)),
            ("firewall-enabled", is("firewall_enabled")),
            ("no-high-risk-open-ports", ports.map(|ports| !ports.iter().any(is_risky))),
            ("tls-cert-expiry", age("tls_cert_expires_at").map(|days| -days >= 30)),
            ("patch-age", age("last_patched_at").map(|days| days < 30)),
            ("os-supported", is("os_supported").or_else(derived)),
        ]
    }

    #[test]
    fn every_rule_passes_on_something_and_fails_on_something() {
        let demo_assets = demo_assets(now());
        let in_scope: Vec<_> = demo_assets
            .iter()
            .filter(|demo_asset| demo_asset.lifecycle_state != Retired)
            .map(verdicts)
            .collect();
        for (index, (rule, _)) in in_scope[0].iter().enumerate() {
            for verdict in [Some(true), Some(false)] {
                assert!(
                    in_scope.iter().any(|verdicts| verdicts[index].1 == verdict),
                    "{rule}: {verdict:?}"
                );
            }
        }
    }
}
