//! The sixteen builtin rules implemented again in Rust, and random assets: the builtin rules must give the same
//! verdicts.

use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeDelta, Utc};
use domain::{
    Id,
    compliance::rule::{FactsRow, Owner, Verdict},
    inventory::{
        asset::{AssetType, Environment, LifecycleState},
        end_of_life,
    },
};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde_json::{Value, json};
use uuid::Uuid;

/// Input of a rule, in a form that an older version may have stored.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) attributes: Value,
    pub(crate) owner: Option<bool>,
}

impl Stored {
    pub(crate) fn described<'a>(&self, attributes: &'a str) -> FactsRow<'a> {
        let owner = |mfa_enabled| Owner { user: Id::from(Uuid::nil()), mfa_enabled, active: true };
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
            owner: self.owner.map(owner),
            tags: Vec::new(),
            attributes: attributes.as_bytes(),
        }
    }
}

/// Returns the expected verdict of a builtin rule.
pub(crate) fn verdict(rule: &str, stored: &Stored, now: DateTime<Utc>) -> Verdict {
    let value = |key: &str| stored.attributes.get(key).filter(|value| !value.is_null());
    let bool_of = |key: &str| value(key).and_then(boolean);
    let passes = match rule {
        "disk-encryption" => bool_of("disk_encrypted"),
        "encryption-in-transit" => bool_of("encryption_in_transit"),
        "edr-present" => bool_of("edr_installed"),
        "antivirus-present" => bool_of("antivirus_installed"),
        "owner-mfa" => stored.owner,
        "no-default-credentials" => bool_of("has_default_credentials").map(|has| !has),
        "password-max-age" => {
            value("password_max_age_days").and_then(number).map(|days| days <= 90)
        }
        "has-owner" => Some(stored.owner.is_some()),
        "logging-enabled" => bool_of("logging_enabled"),
        "log-retention" => value("log_retention_days").and_then(number).map(|days| days >= 30),
        "backup-recency" => {
            value("last_backup_at").and_then(time).map(|at| now - at <= TimeDelta::days(7))
        }
        "firewall-enabled" => bool_of("firewall_enabled"),
        "no-high-risk-open-ports" => value("open_ports")
            .and_then(ports)
            .map(|ports| !ports.iter().any(|port| [21, 23, 445, 2323, 3389].contains(port))),
        "tls-cert-expiry" => {
            value("tls_cert_expires_at").and_then(time).map(|at| at - now >= TimeDelta::days(30))
        }
        "patch-age" => {
            value("last_patched_at").and_then(time).map(|at| now - at < TimeDelta::days(30))
        }
        "os-supported" => {
            let text = |key: &str| value(key).and_then(Value::as_str);
            let system = || end_of_life::release_by_name(text("os_name")?, text("os_version"));
            stored
                .attributes
                .get("os_supported")
                .map_or_else(|| system().map(|system| system.is_supported_at(now)), boolean)
        }
        other => panic!("{other} is not written by hand"),
    };
    match passes {
        None => Verdict::NotAssessed,
        Some(true) => Verdict::Pass,
        Some(false) => Verdict::Fail,
    }
}

fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        Value::Number(number) => Some(number.as_f64()? != 0.0),
        Value::String(text) => {
            let text = text.trim().to_lowercase();
            if ["true", "yes", "1", "on", "enabled"].contains(&text.as_str()) {
                return Some(true);
            }
            ["false", "no", "0", "off", "disabled"].contains(&text.as_str()).then_some(false)
        }
        _ => None,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "what int() does")]
fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| Some(value.as_f64()? as i64))
}

fn ports(value: &Value) -> Option<Vec<i64>> {
    let port = |item: &Value| match item {
        Value::Number(number) => number.as_i64(),
        Value::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    };
    Some(value.as_array()?.iter().filter_map(port).collect())
}

fn time(value: &Value) -> Option<DateTime<Utc>> {
    let at = match value {
        Value::Number(number) => DateTime::from_timestamp(number.as_i64()?, 0)?,
        Value::String(text) => DateTime::parse_from_rfc3339(text)
            .map(|at| at.to_utc())
            .or_else(|_| {
                NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").map(|at| at.and_utc())
            })
            .or_else(|_| {
                text.parse::<NaiveDate>().map(|day| day.and_time(chrono::NaiveTime::MIN).and_utc())
            })
            .ok()?,
        _ => return None,
    };
    DateTime::from_timestamp_micros(at.timestamp_micros())
}

/// Current time in microseconds since 1970; stored times lie around it.
const NOW: i64 = 1_790_000_000_123_456;

pub(crate) fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_micros(NOW).unwrap()
}

fn any_boolean() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => any::<bool>().prop_map(|value| json!(value)),
        2 => prop::sample::select(vec![
            json!("yes"), json!(" On "), json!("DISABLED"), json!("0"), json!("maybe"), json!(""), json!(1),
            json!(0), json!(-2), json!(0.0), json!(0.5), json!([]), json!({}), Value::Null,
        ]),
    ]
}

fn any_number(bound: i64) -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => (bound - 2..=bound + 2).prop_map(|number| json!(number)),
        1 => any::<i64>().prop_map(|number| json!(number)),
        1 => (-5_i32..=5).prop_map(move |tenths| {
            #[expect(clippy::cast_precision_loss, reason = "small")]
            let near = bound as f64 + f64::from(tenths) / 2.0;
            json!(near)
        }),
        1 => prop::sample::select(vec![
            json!("90"), json!(true), json!([90]), json!(1e300), json!(-1e300), json!(u64::MAX), Value::Null,
        ]),
    ]
}

/// Generates instants around the one this number of days from now, to the microsecond.
fn any_time(days: i64) -> impl Strategy<Value = Value> {
    let at = move |micros: i64| {
        DateTime::from_timestamp_micros(NOW + days * 86_400_000_000 + micros).unwrap()
    };
    prop_oneof![
        3 => (-2_i64..=2).prop_map(move |micros| {
            json!(at(micros).to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true))
        }),
        2 => (-4_000_000_000_000_i64..=4_000_000_000_000).prop_map(move |micros| json!(at(micros))),
        1 => (-3_i64..=3).prop_map(move |seconds| json!(at(seconds * 1_000_000).timestamp())),
        1 => (-40_i64..=40).prop_map(move |days| json!(at(days * 86_400_000_000).date_naive())),
        1 => (-9_i64..=9).prop_map(move |micros| json!(at(micros).naive_utc())),
        1 => (-9_i64..=9).prop_map(move |micros| {
            let there = chrono::FixedOffset::east_opt(7_200).unwrap();
            json!(at(micros).with_timezone(&there).to_rfc3339())
        }),
        1 => prop::sample::select(vec![
            json!("yesterday"), json!(""), json!(true), json!([]), json!("2026-13-01"),
            json!("9999-12-31T23:59:59Z"), Value::Null,
        ]),
    ]
}

fn any_ports() -> impl Strategy<Value = Value> {
    let port = prop_oneof![
        4 => prop::sample::select(vec![22, 80, 443, 8080, 21, 23, 445, 2323, 3389]).prop_map(|port| json!(port)),
        1 => prop::sample::select(vec![
            json!("23"), json!("443"), json!("ssh"), json!(""), json!(true), json!(23.0), json!(null), json!([23]),
            json!("-23"), json!(" 23"),
        ]),
    ];
    prop_oneof![
        6 => prop::collection::vec(port, 0..5).prop_map(Value::from),
        1 => prop::sample::select(vec![json!("22"), json!(23), json!({"23": 23}), json!(true), Value::Null]),
    ]
}

fn any_system() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!("Ubuntu 20.04"),
        json!("Ubuntu 24.04 LTS"),
        json!("Debian"),
        json!("Windows 11 Pro 23H2"),
        json!("BeOS"),
        json!("Proxmox VE 9"),
        json!(12),
        Value::Null,
    ])
}

/// Values of each attribute, generated once. Assets are composed of them, which is much cheaper than generating each
/// value again.
pub(crate) struct Stores {
    values: Vec<(&'static str, Vec<Option<Value>>)>,
    random: u64,
}

/// Number of values to generate per attribute.
const DRAWN: usize = 500;

impl Stores {
    pub(crate) fn new() -> Self {
        let mut runner = TestRunner::deterministic();
        let mut drawn = |share: f64, values: BoxedStrategy<Value>| {
            let values = prop::option::weighted(share, values);
            (0..DRAWN).map(|_| values.new_tree(&mut runner).unwrap().current()).collect()
        };
        let versions = prop::sample::select(vec![json!("12"), json!(12)]);
        let mut values = vec![
            ("password_max_age_days", drawn(0.8, any_number(90).boxed())),
            ("log_retention_days", drawn(0.8, any_number(30).boxed())),
            ("last_backup_at", drawn(0.8, any_time(-7).boxed())),
            ("open_ports", drawn(0.8, any_ports().boxed())),
            ("tls_cert_expires_at", drawn(0.8, any_time(30).boxed())),
            ("last_patched_at", drawn(0.8, any_time(-30).boxed())),
            ("os_supported", drawn(0.3, any_boolean().boxed())),
            ("os_name", drawn(0.8, any_system().boxed())),
            ("os_version", drawn(0.3, versions.boxed())),
        ];
        for key in [
            "disk_encrypted",
            "encryption_in_transit",
            "edr_installed",
            "antivirus_installed",
            "has_default_credentials",
            "logging_enabled",
            "firewall_enabled",
        ] {
            values.push((key, drawn(0.8, any_boolean().boxed())));
        }
        Self { values, random: 0 }
    }

    /// Returns a number below `most`, generated by `SplitMix64`.
    fn below(&mut self, most: usize) -> usize {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ (mixed >> 31)) % most as u64).unwrap()
    }

    /// Returns a random asset as some server version may have stored it.
    pub(crate) fn draw(&mut self) -> Stored {
        let mut object = serde_json::Map::new();
        for index in 0..self.values.len() {
            let drawn = self.below(DRAWN);
            let (key, values) = &self.values[index];
            if let Some(value) = &values[drawn] {
                object.insert((*key).to_owned(), value.clone());
            }
        }
        let owner = [None, Some(true), Some(false)][self.below(3)];
        Stored { attributes: Value::Object(object), owner }
    }
}
