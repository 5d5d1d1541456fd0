//! Tests of facts from a row, including values of other types that older server versions stored.

use cel::common::types::{CelInt, CelString};
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::base::id::Id;

/// Returns a production host with only these attributes.
pub(in crate::compliance::rule) fn described(attributes: &[u8]) -> FactsRow<'_> {
    FactsRow {
        asset: Id::from(Uuid::nil()),
        asset_type: AssetType::Host,
        environment: Environment::Prod,
        lifecycle_state: LifecycleState::Active,
        name: "web-1",
        code: "HST-AAAAA",
        external_id: None,
        location: None,
        description: None,
        owner: None,
        tags: Vec::new(),
        attributes,
    }
}

fn value(facts: &Facts, name: &str) -> Value {
    let (root, field) = name.split_once('.').unwrap();
    match facts.value(FactKey::of_field(root, field).unwrap()) {
        None => Value::Null,
        Some(FactValue::Bool(value)) => json!(value.inner()),
        Some(FactValue::Int(number)) => json!(number.inner()),
        Some(FactValue::Text(text)) => json!(text.inner()),
        Some(FactValue::Time(at)) => json!(at.inner().to_utc().to_rfc3339()),
        Some(FactValue::List(items)) => items
            .inner()
            .iter()
            .map(|item| match item.downcast_ref::<CelInt>() {
                Some(number) => json!(number.inner()),
                None => json!(item.downcast_ref::<CelString<'_>>().unwrap().inner()),
            })
            .collect(),
    }
}

#[test]
fn a_value_that_does_not_fit_counts_as_what_it_means() {
    for (key, stored, read) in [
        ("disk_encrypted", json!(true), json!(true)),
        ("disk_encrypted", json!(" Enabled "), json!(true)),
        ("disk_encrypted", json!(0), json!(false)),
        ("disk_encrypted", json!(-0.5), json!(true)),
        ("disk_encrypted", json!("maybe"), Value::Null),
        ("disk_encrypted", json!([true]), Value::Null),
        ("disk_encrypted", json!({"a": 1}), Value::Null),
        ("disk_encrypted", Value::Null, Value::Null),
        ("password_max_age_days", json!(90), json!(90)),
        ("password_max_age_days", json!(90.9), json!(90)),
        ("password_max_age_days", json!("90"), Value::Null),
        ("password_max_age_days", json!(true), Value::Null),
        ("password_max_age_days", json!(u64::MAX), json!(i64::MAX)),
        ("last_backup_at", json!("2026-05-31"), json!("2026-05-31T00:00:00+00:00")),
        ("last_backup_at", json!("2026-05-31T18:00:00"), json!("2026-05-31T18:00:00+00:00")),
        ("last_backup_at", json!(1_780_000_000), json!("2026-05-28T20:26:40+00:00")),
        (
            "last_backup_at",
            json!("2026-05-31T18:00:00.1234567Z"),
            json!("2026-05-31T18:00:00.123456+00:00"),
        ),
        ("last_backup_at", json!("yesterday"), Value::Null),
        ("last_backup_at", json!(true), Value::Null),
        ("open_ports", json!([22, "443", true, null, "ssh", [1], {"a": 1}, 8.5]), json!([22, 443])),
        ("open_ports", json!("22"), Value::Null),
        ("open_ports", json!([]), json!([])),
        ("ip_addresses", json!(["10.0.0.1", 7, "fe80::1"]), json!(["10.0.0.1", "fe80::1"])),
        ("os_name", json!("Debian"), json!("Debian")),
        ("os_name", json!(12), Value::Null),
    ] {
        let stored_as =
            json!({ key: stored, "of an older version": {"deep": [1, {}]} }).to_string();
        let facts = Facts::of(&described(stored_as.as_bytes())).unwrap();
        assert_eq!(value(&facts, &format!("attr.{key}")), read, "{key}: {stored}");
    }
}

#[test]
fn the_rest_of_a_row_is_read_by_its_names() {
    let owner = Owner { user: Id::from(Uuid::nil()), mfa_enabled: true, active: false };
    let facts = Facts::of(&FactsRow {
        owner: Some(owner),
        tags: vec!["Edge".to_owned()],
        external_id: Some("e"),
        location: Some("l"),
        description: Some("d"),
        ..described(b"{}")
    })
    .unwrap();
    for (name, read) in [
        ("asset.type", json!("HOST")),
        ("asset.environment", json!("PROD")),
        ("asset.lifecycle_state", json!("ACTIVE")),
        ("asset.name", json!("web-1")),
        ("asset.code", json!("HST-AAAAA")),
        ("asset.external_id", json!("e")),
        ("asset.location", json!("l")),
        ("asset.description", json!("d")),
        ("asset.tags", json!(["Edge"])),
        ("owner.id", json!(owner.user)),
        ("owner.mfa_enabled", json!(true)),
        ("owner.active", json!(false)),
    ] {
        assert_eq!(value(&facts, name), read, "{name}");
    }
    assert!(facts.has_tag(&["edge".to_owned()]) && !facts.has_tag(&["core".to_owned()]));
}

#[test]
fn support_follows_from_the_system_unless_somebody_says() {
    let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
    for (stored, before, after) in [
        (json!({"os_name": "Ubuntu 20.04"}), Some(true), Some(false)),
        (json!({"os_name": "Ubuntu", "os_version": "20.04"}), Some(true), Some(false)),
        (json!({"os_name": "Ubuntu 20.04", "os_supported": true}), None, None),
        (json!({"os_name": "BeOS 5"}), None, None),
        (json!({}), None, None),
    ] {
        let text = stored.to_string();
        let facts = Facts::of(&described(text.as_bytes())).unwrap();
        assert_eq!(facts.derived_os_supported(at("2025-05-29T23:59:59Z")), before, "{stored}");
        assert_eq!(facts.derived_os_supported(at("2025-05-30T00:00:00Z")), after, "{stored}");
    }
}

#[test]
fn what_is_no_object_is_corrupt() {
    for stored in ["[]", "1", "{", ""] {
        let read = Facts::of(&described(stored.as_bytes()));
        assert!(
            matches!(read, Err(crate::Error::Corrupt { column: "attributes", .. })),
            "{stored}"
        );
    }
}
