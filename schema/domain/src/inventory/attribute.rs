//! What can be known of an asset: the registry of attributes, and their values in one form. (`attribute/value`: reading
//! one.)
//!
//! One vocabulary for everybody who writes and everything that reads: a key that a rule reads is a key that can be
//! written, other names for it are translated at the door, and what is no value of its type is refused there. So a rule
//! meets `true` and never "yes". What a team wants to keep beside these are custom fields, which no rule reads.

use std::{iter, sync::LazyLock};

use async_graphql::{Enum, SimpleObject};
use serde_json::Value;

use crate::{
    access::{directive::requires, permission::Permission},
    base::{error::FieldError, nearest::nearest, text::beginning},
};

mod value;

pub use value::cell;
pub(crate) use value::{boolean_of, date_time_of, date_time_of_seconds, whole};

/// What the values of an attribute are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub enum AttributeType {
    /// `true` or `false`; also read from yes and no, on and off, enabled and disabled, 1 and 0.
    Boolean,
    /// A whole number.
    Integer,
    /// A time in RFC 3339 and UTC; also read from a date, a local time without a zone (taken as UTC), and seconds since 1970, from 1990 on.
    DateTime,
    /// A line of text.
    Text,
    /// Whole numbers, each once, smallest first; also read from a text that separates them by spaces or commas.
    IntegerList,
    /// Lines of text, each once; also read from a text that separates them by commas.
    TextList,
}

/// Something that can be known of an asset. Takes `ASSET_READ`.
#[derive(Debug, Clone, PartialEq, Eq, SimpleObject)]
#[graphql(directive = requires::apply(Permission::AssetRead))]
pub struct Attribute {
    /// Its key in `attributes`, e.g. `disk_encrypted`.
    pub key: String,
    /// What its values are.
    #[graphql(name = "type")]
    pub attribute_type: AttributeType,
    /// What a number counts, e.g. `days`.
    pub unit: Option<String>,
    /// Other names that are taken for it.
    pub aliases: Vec<String>,
    /// What it says.
    pub description: String,
    /// Whether its other names say the opposite: their values are turned around.
    #[graphql(skip)]
    opposite: bool,
    /// The smallest and the largest number.
    #[graphql(skip)]
    bounds: (i64, i64),
}

/// The attribute that `os_name` and `os_version` derive, where nobody says better.
pub const OS_SUPPORTED: &str = "os_supported";

static REGISTRY: LazyLock<Vec<Attribute>> = LazyLock::new(|| {
    use AttributeType::{Boolean, DateTime, Integer, IntegerList, Text, TextList};
    let mut all = vec![
        attribute("antivirus_installed", Boolean, "Whether a virus scanner is installed and running").named("antivirus_present"),
        attribute("cpu_cores", Integer, "Processor cores").counting("cores", 1, 1_000_000),
        attribute("disk_encrypted", Boolean, "Whether what is stored on its disks is encrypted").named("disk_encryption"),
        attribute("disk_bytes", Integer, "Capacity of its disks").counting("bytes", 0, i64::MAX),
        attribute("edr_installed", Boolean, "Whether endpoint detection and response is installed and running").named("edr_present"),
        attribute("encryption_in_transit", Boolean, "Whether it speaks only encrypted protocols to others"),
        attribute("firewall_enabled", Boolean, "Whether a firewall on it, or right before it, refuses what is not allowed"),
        attribute("fqdn", Text, "Its full name in the DNS"),
        attribute("has_default_credentials", Boolean, "Whether a password that its vendor set still works").named("default_credentials"),
        attribute("ip_addresses", TextList, "Its addresses"),
        attribute("kernel_version", Text, "The version of its kernel, e.g. `6.1.0-28-amd64`"),
        attribute("last_backup_at", DateTime, "When the last backup that succeeded ended").named("backup_last_at"),
        attribute("last_patched_at", DateTime, "When updates were last installed"),
        attribute("log_retention_days", Integer, "For how long its logs are kept").counting("days", 0, 36_500),
        attribute("logging_enabled", Boolean, "Whether it records security-relevant events"),
        attribute("mac_addresses", TextList, "The addresses of its network interfaces"),
        attribute("manufacturer", Text, "Who made it"),
        attribute("memory_bytes", Integer, "Its memory").counting("bytes", 0, i64::MAX),
        attribute("model", Text, "Its model, as its maker calls it"),
        attribute("open_ports", IntegerList, "TCP ports on which others can reach it").counting("port", 0, 65_535),
        attribute("os_name", Text, "Its operating system, e.g. `Debian 12` or `Ubuntu 24.04`"),
        attribute(OS_SUPPORTED, Boolean, "Whether its operating system still gets security updates; derived from `os_name` and `os_version` where they are known and nobody says otherwise").opposed("os_eol"),
        attribute("os_version", Text, "The version of its operating system, where `os_name` does not say it"),
        attribute("password_max_age_days", Integer, "After how long its users must change their passwords").counting("days", 0, 100_000),
        attribute("serial_number", Text, "The serial number on its case"),
        attribute("tls_cert_expires_at", DateTime, "When the certificate that it presents expires"),
    ];
    all.sort_by(|one, other| one.key.cmp(&other.key));
    all
});

fn attribute(key: &str, attribute_type: AttributeType, description: &str) -> Attribute {
    Attribute {
        key: key.to_owned(),
        attribute_type,
        unit: None,
        aliases: Vec::new(),
        description: description.to_owned(),
        opposite: false,
        bounds: (i64::MIN, i64::MAX),
    }
}

impl Attribute {
    fn named(self, alias: &str) -> Self {
        Self { aliases: vec![alias.to_owned()], ..self }
    }

    /// As [`Self::named`], by a name that says the opposite.
    fn opposed(self, alias: &str) -> Self {
        Self { opposite: true, ..self.named(alias) }
    }

    fn counting(self, unit: &str, least: i64, most: i64) -> Self {
        Self { unit: Some(unit.to_owned()), bounds: (least, most), ..self }
    }

    /// All of them, by key.
    pub fn all() -> &'static [Self] {
        &REGISTRY
    }

    /// The one of this key.
    pub fn of_key(key: &str) -> Option<&'static Self> {
        REGISTRY.iter().find(|known| known.key == key)
    }

    /// The place of the one of this key among all of them.
    pub(crate) fn place_of(key: &str) -> Option<usize> {
        REGISTRY.binary_search_by(|known| known.key.as_str().cmp(key)).ok()
    }

    /// The value as it is kept.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence without a full stop.
    pub fn normalise(&self, name: &str, value: &Value) -> Result<Value, String> {
        let value = value::read(self.attribute_type, self.bounds, value)?;
        Ok(match value {
            Value::Bool(value) if self.opposite && name != self.key => Value::Bool(!value),
            value => value,
        })
    }
}

/// The attribute of that name, or what is wrong with the name.
///
/// # Errors
/// A fault at `path` that suggests the nearest name.
pub fn find(name: &str, path: &str) -> Result<&'static Attribute, FieldError> {
    let name = name.trim();
    let has =
        |known: &&Attribute| known.key == name || known.aliases.iter().any(|alias| alias == name);
    REGISTRY.iter().find(has).ok_or_else(|| FieldError {
        suggestion: suggestion(name),
        ..FieldError::new(
            path,
            format!(
                "{:?} is no attribute: the query attributes lists them, and what else you want to keep is a custom field",
                beginning(name)
            ),
        )
    })
}

/// The key that was probably meant.
pub fn suggestion(name: &str) -> Option<String> {
    let names = REGISTRY
        .iter()
        .flat_map(|known| iter::once(&known.key).chain(&known.aliases))
        .map(String::as_str);
    nearest(name, names).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_name_is_one_attributes() {
        let mut names: Vec<_> = Attribute::all()
            .iter()
            .flat_map(|known| iter::once(&known.key).chain(&known.aliases))
            .collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn what_the_rules_read_can_be_written() {
        for key in [
            "disk_encrypted",
            "encryption_in_transit",
            "edr_installed",
            "antivirus_installed",
            "has_default_credentials",
            "password_max_age_days",
            "logging_enabled",
            "log_retention_days",
            "last_backup_at",
            "firewall_enabled",
            "open_ports",
            "tls_cert_expires_at",
            "last_patched_at",
            "os_supported",
        ] {
            assert!(Attribute::of_key(key).is_some(), "{key}");
        }
    }

    #[test]
    fn other_names_are_translated_and_an_opposite_is_turned_around() {
        for (name, given, key, kept) in [
            ("disk_encryption", json!("yes"), "disk_encrypted", json!(true)),
            ("os_eol", json!(true), "os_supported", json!(false)),
            (
                "backup_last_at",
                json!("2026-01-02"),
                "last_backup_at",
                json!("2026-01-02T00:00:00Z"),
            ),
            ("edr_present", json!(1), "edr_installed", json!(true)),
            ("antivirus_present", json!("off"), "antivirus_installed", json!(false)),
            ("default_credentials", json!(false), "has_default_credentials", json!(false)),
        ] {
            let attribute = find(name, "a").unwrap();
            assert_eq!(attribute.key, key);
            assert_eq!(attribute.normalise(name, &given), Ok(kept));
        }
    }

    #[test]
    fn an_unknown_name_suggests_the_nearest() {
        let fault = find("disk_encypted", "input.attributes.disk_encypted").unwrap_err();
        assert_eq!(fault.suggestion.as_deref(), Some("disk_encrypted"));
        assert_eq!(find("zebra", "a").unwrap_err().suggestion, None);
    }
}
