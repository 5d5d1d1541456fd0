//! The registry of attributes: the keys and types of the facts that an asset can have. `attribute/value` parses values.
//!
//! The API, imports and rules use the same keys, and a caller can write every key that a rule reads. When a fact is
//! written, an alias is translated to its key, a value is converted to the attribute's type, and any other value is
//! rejected. A rule therefore reads `true` and never "yes". Values under other names are custom fields, which rules do
//! not read.

use std::{iter, sync::LazyLock};

use async_graphql::{Enum, SimpleObject};
use serde_json::Value;

use crate::{
    access::{directive::requires, permission::Permission},
    base::{error::FieldError, nearest::nearest, text::beginning},
};

mod value;

pub use value::cell;
pub(crate) use value::{boolean_of, date_time_of, date_time_of_seconds, whole_number};

/// Type of an attribute's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub enum AttributeType {
    /// `true` or `false`. Also accepts yes and no, on and off, enabled and disabled, 1 and 0.
    Boolean,
    /// A whole number within the attribute's bounds.
    Integer,
    /// A time in RFC 3339 format, stored in UTC. Also accepts a date, a time without a time zone (taken as UTC), and a
    /// number of seconds since 1970 for times from 1990 on.
    DateTime,
    /// A single line of text.
    Text,
    /// A list of whole numbers, stored in ascending order without duplicates. Also accepts a text of numbers that are
    /// separated by spaces, commas or semicolons.
    IntegerList,
    /// A list of single lines of text, stored without duplicates. Also accepts a text of items that are separated by
    /// commas or semicolons.
    TextList,
}

/// An attribute: one typed fact that an asset can have. Requires `ASSET_READ`.
#[derive(Debug, Clone, PartialEq, Eq, SimpleObject)]
#[graphql(directive = requires::apply(Permission::AssetRead))]
pub struct Attribute {
    /// The attribute's key in `attributes`, e.g. `disk_encrypted`.
    pub key: String,
    /// Type of the attribute's values.
    #[graphql(name = "type")]
    pub attribute_type: AttributeType,
    /// Unit of the attribute's numbers, e.g. `days`; null if the attribute has no unit.
    pub unit: Option<String>,
    /// Aliases of the key, which are accepted when facts are written.
    pub aliases: Vec<String>,
    /// Meaning of the attribute's value.
    pub description: String,
    /// True if the aliases have the opposite meaning of the key: a value given under an alias is negated.
    #[graphql(skip)]
    aliases_are_opposite: bool,
    /// Minimum and maximum of the attribute's numbers.
    #[graphql(skip)]
    bounds: (i64, i64),
}

/// Key of the attribute that is derived from `os_name` and `os_version` if it has no stored value.
pub const OS_SUPPORTED: &str = "os_supported";

static REGISTRY: LazyLock<Vec<Attribute>> = LazyLock::new(|| {
    use AttributeType::{Boolean, DateTime, Integer, IntegerList, Text, TextList};
    let mut all = vec![
        attribute("antivirus_installed", Boolean, "True if a virus scanner is installed and running").with_alias("antivirus_present"),
        attribute("cpu_cores", Integer, "Number of processor cores").with_unit("cores", 1, 1_000_000),
        attribute("disk_encrypted", Boolean, "True if the data on the asset's disks is encrypted").with_alias("disk_encryption"),
        attribute("disk_bytes", Integer, "Total capacity of the asset's disks").with_unit("bytes", 0, i64::MAX),
        attribute("edr_installed", Boolean, "True if endpoint detection and response is installed and running").with_alias("edr_present"),
        attribute("encryption_in_transit", Boolean, "True if the asset communicates only over encrypted protocols"),
        attribute("firewall_enabled", Boolean, "True if a firewall on the asset, or directly in front of the asset, rejects traffic that is not allowed"),
        attribute("fqdn", Text, "Fully qualified domain name of the asset"),
        attribute("has_default_credentials", Boolean, "True if a password that the vendor set still works").with_alias("default_credentials"),
        attribute("ip_addresses", TextList, "IP addresses of the asset"),
        attribute("kernel_version", Text, "Version of the asset's kernel, e.g. `6.1.0-28-amd64`"),
        attribute("last_backup_at", DateTime, "End of the last successful backup").with_alias("backup_last_at"),
        attribute("last_patched_at", DateTime, "Time at which updates were last installed"),
        attribute("log_retention_days", Integer, "Period for which the asset's logs are kept").with_unit("days", 0, 36_500),
        attribute("logging_enabled", Boolean, "True if the asset records security-relevant events"),
        attribute("mac_addresses", TextList, "MAC addresses of the asset's network interfaces"),
        attribute("manufacturer", Text, "Manufacturer of the asset"),
        attribute("memory_bytes", Integer, "Total memory of the asset").with_unit("bytes", 0, i64::MAX),
        attribute("model", Text, "Model name of the asset, as given by its manufacturer"),
        attribute("open_ports", IntegerList, "TCP ports on which the asset accepts connections from other machines").with_unit("port", 0, 65_535),
        attribute("os_name", Text, "Operating system of the asset, e.g. `Debian 12` or `Ubuntu 24.04`"),
        attribute(OS_SUPPORTED, Boolean, "True if the operating system still gets security updates. If no value is set, derived from `os_name` and `os_version`, provided that the release is known").with_opposite_alias("os_eol"),
        attribute("os_version", Text, "Version of the operating system, if `os_name` does not contain it"),
        attribute("password_max_age_days", Integer, "Age at which users must change their passwords").with_unit("days", 0, 100_000),
        attribute("serial_number", Text, "Serial number of the asset, given by its manufacturer"),
        attribute("tls_cert_expires_at", DateTime, "Expiry of the TLS certificate that the asset presents"),
    ];
    all.sort_by(|left, right| left.key.cmp(&right.key));
    all
});

fn attribute(key: &str, attribute_type: AttributeType, description: &str) -> Attribute {
    Attribute {
        key: key.to_owned(),
        attribute_type,
        unit: None,
        aliases: Vec::new(),
        description: description.to_owned(),
        aliases_are_opposite: false,
        bounds: (i64::MIN, i64::MAX),
    }
}

impl Attribute {
    fn with_alias(self, alias: &str) -> Self {
        Self { aliases: vec![alias.to_owned()], ..self }
    }

    /// Returns the attribute with an alias that has the opposite meaning of the key.
    fn with_opposite_alias(self, alias: &str) -> Self {
        Self { aliases_are_opposite: true, ..self.with_alias(alias) }
    }

    fn with_unit(self, unit: &str, minimum: i64, maximum: i64) -> Self {
        Self { unit: Some(unit.to_owned()), bounds: (minimum, maximum), ..self }
    }

    /// Returns all attributes, ordered by key.
    pub fn all() -> &'static [Self] {
        &REGISTRY
    }

    /// Returns the attribute with this key, or `None`.
    pub fn of_key(key: &str) -> Option<&'static Self> {
        REGISTRY.iter().find(|attribute| attribute.key == key)
    }

    /// Returns the index of this key in [`Self::all`], or `None`.
    pub(crate) fn index_of(key: &str) -> Option<usize> {
        REGISTRY.binary_search_by(|attribute| attribute.key.as_str().cmp(key)).ok()
    }

    /// Converts a value to the form in which it is stored. `name` is the key or alias under which the caller gave the
    /// value.
    ///
    /// # Errors
    /// A message that describes the error in the value, without a full stop.
    pub fn normalise(&self, name: &str, value: &Value) -> Result<Value, String> {
        let value = value::read(self.attribute_type, self.bounds, value)?;
        Ok(match value {
            Value::Bool(value) if self.aliases_are_opposite && name != self.key => {
                Value::Bool(!value)
            }
            value => value,
        })
    }
}

/// Returns the attribute with this key or alias.
///
/// # Errors
/// An error at `path` that suggests the most similar name.
pub fn find(name: &str, path: &str) -> Result<&'static Attribute, FieldError> {
    let name = name.trim();
    let has_name = |attribute: &&Attribute| {
        attribute.key == name || attribute.aliases.iter().any(|alias| alias == name)
    };
    REGISTRY.iter().find(has_name).ok_or_else(|| FieldError {
        suggestion: suggestion(name),
        ..FieldError::new(
            path,
            format!(
                "there is no attribute {:?}: the query attributes lists all attributes; use a custom field for other data",
                beginning(name)
            ),
        )
    })
}

/// Returns the key or alias that is most similar to `name`; `None` if none is similar enough.
pub fn suggestion(name: &str) -> Option<String> {
    let names = REGISTRY
        .iter()
        .flat_map(|attribute| iter::once(&attribute.key).chain(&attribute.aliases))
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
            .flat_map(|attribute| iter::once(&attribute.key).chain(&attribute.aliases))
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
        for (name, given, key, stored) in [
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
            assert_eq!(attribute.normalise(name, &given), Ok(stored));
        }
    }

    #[test]
    fn an_unknown_name_suggests_the_nearest() {
        let fault = find("disk_encypted", "input.attributes.disk_encypted").unwrap_err();
        assert_eq!(fault.suggestion.as_deref(), Some("disk_encrypted"));
        assert_eq!(find("zebra", "a").unwrap_err().suggestion, None);
    }
}
