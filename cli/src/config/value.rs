//! Types and parsers of setting values. A parser returns the value, or a description of the expected form.

use std::{
    collections::HashMap, io::Read, num::NonZeroU32, ops::RangeInclusive, path::PathBuf,
    str::FromStr, time::Duration,
};

use ipnet::IpNet;
use sha2::{Digest, Sha256};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use url::Url;

use super::{Expected, Secret};

/// Maximum count per time unit, e.g. `10/minute`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Maximum count per time unit.
    pub count: NonZeroU32,
    /// Length of the time unit.
    pub per: Duration,
}

impl FromStr for Rate {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        let rate = || {
            let (count, unit) = text.split_once('/')?;
            let seconds = match unit.trim() {
                "second" => 1,
                "minute" => 60,
                "hour" => 60 * 60,
                "day" => 24 * 60 * 60,
                _ => return None,
            };
            Some(Self { count: digits(count.trim())?, per: Duration::from_secs(seconds) })
        };
        rate().ok_or("a count and a unit, such as 10/minute (second, minute, hour or day)".into())
    }
}

/// Origin whose pages may call the API, exactly as browsers send it in the header `Origin`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin(String);

impl Origin {
    /// Returns the origin as text, exactly as browsers send it.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Origin {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        Url::parse(text)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && !text.contains('*'))
            .map(|url| url.origin().ascii_serialization())
            .filter(|origin| origin == text)
            .map(Self)
            .ok_or(
                "origins as browsers send them, such as https://ops.example.com or \
                 http://localhost:3000, without *, null, path, capitals or default port"
                    .into(),
            )
    }
}

/// Postgres URL with host, database and login.
#[derive(Debug, Clone)]
pub(crate) struct DatabaseUrl {
    /// The URL as set by the operator; it may contain a password.
    pub url: Secret<String>,
}

impl FromStr for DatabaseUrl {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        let has_scheme = text.starts_with("postgres://") || text.starts_with("postgresql://");
        // Names are verified in both modes; tokio-postgres knows the first one only.
        let text = text.replace("sslmode=verify-full", "sslmode=require");
        text.parse()
            .ok()
            .filter(|options: &tokio_postgres::Config| {
                has_scheme && !options.get_hosts().is_empty() && options.get_user().is_some()
            })
            .map(|_| Self { url: Secret::new(text.clone()) })
            .ok_or(
                "postgres://user:password@host:5432/database, with ?sslmode=require or verify-full for TLS".into(),
            )
    }
}

/// Parses the URL of a Redis or Valkey.
pub(super) fn redis_url(text: &str) -> Result<Secret<Url>, Expected> {
    let is_redis = |url: &Url| match url.scheme() {
        "redis" | "rediss" => url.has_host(),
        "redis+unix" => !matches!(url.path(), "" | "/"),
        _ => false,
    };
    Url::parse(text).ok().filter(is_redis).map(Secret::new).ok_or(
        "redis://[user:password@]host:6379[/0], rediss://… for TLS or redis+unix:///path".into(),
    )
}

/// GraphQL documents, keyed by the SHA-256 of the document in lower-case hex.
pub(crate) type Documents = HashMap<String, String>;

/// Reads the documents from the file at `path`: one JSON object that maps the SHA-256 of each document to the document.
pub(super) fn documents(path: &str) -> Result<Documents, Expected> {
    let mut text = Vec::new();
    let file = super::reader::open(path);
    file.and_then(|mut file| file.read_to_end(&mut text))
        .map_err(|_| "the path of a readable JSON file")?;
    let documents: Documents = serde_json::from_slice(&text)
        .map_err(|_| "a JSON file with one object: SHA-256 in hex → document")?;
    let is_keyed_by_hash = |(hash, document): (&String, &String)| {
        *hash == format!("{:x}", Sha256::digest(document.as_bytes()))
    };
    if documents.is_empty() || !documents.iter().all(is_keyed_by_hash) {
        return Err(
            "at least one document, and each under its own SHA-256 in lower-case hex".into()
        );
    }
    Ok(documents)
}

/// Log filter in the syntax of tracing's `EnvFilter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogFilter(String);

impl LogFilter {
    /// Builds the filter for tracing.
    pub(crate) fn env_filter(&self) -> EnvFilter {
        Self::parse(&self.0).expect("`from_str` has parsed the same text")
    }

    /// Returns true if the filter passes no event below the level `info`.
    pub(crate) fn is_at_most_info(&self) -> bool {
        self.env_filter().max_level_hint().is_some_and(|level| level <= LevelFilter::INFO)
    }

    /// Returns true if the filter passes no event at all.
    pub(crate) fn is_off(&self) -> bool {
        self.env_filter().max_level_hint() == Some(LevelFilter::OFF)
    }

    // Regular expressions are off, so that no filter can use excessive time.
    fn parse(text: &str) -> Option<EnvFilter> {
        EnvFilter::builder().with_regex(false).parse(text).ok()
    }
}

impl FromStr for LogFilter {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        // `EnvFilter` would take the typo `inof` for a target, and drop the events of all other targets.
        let is_level =
            |part: &str| part.contains('=') || part.trim().parse::<LevelFilter>().is_ok();
        let is_plain = text.contains('[') || text.split(',').all(is_level);
        (is_plain && Self::parse(text).is_some()).then(|| Self(text.to_owned())).ok_or(
            "off, error, warn, info, debug or trace, or directives such as warn,api=info".into(),
        )
    }
}

/// Parses `true` or `false`; other spellings are rejected.
pub(super) fn boolean(text: &str) -> Result<bool, Expected> {
    text.parse().map_err(|_| "true or false".into())
}

/// Parses an IP address and a port.
pub(super) fn socket(text: &str) -> Result<std::net::SocketAddr, Expected> {
    text.parse()
        .map_err(|_| "an IP address and a port, such as 127.0.0.1:8080 or [::1]:8080".into())
}

/// Returns the path of a folder, which does not have to exist.
#[expect(clippy::unnecessary_wraps, reason = "all parsers have this signature")]
pub(super) fn folder(text: &str) -> Result<PathBuf, Expected> {
    Ok(PathBuf::from(text))
}

/// Returns a parser of whole numbers within `bounds`, inclusive.
pub(super) fn within<T>(bounds: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, Expected>
where
    T: FromStr + PartialOrd + std::fmt::Display,
{
    move |text| {
        digits(text).filter(|number| bounds.contains(number)).ok_or_else(|| {
            format!("a whole number from {} to {}", bounds.start(), bounds.end()).into()
        })
    }
}

/// Returns a parser of durations: whole numbers of the unit, within `bounds`.
pub(super) fn duration(
    unit_seconds: u64,
    bounds: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<Duration, Expected> {
    let count = within(bounds);
    move |text| count(text).map(|count| Duration::from_secs(count * unit_seconds))
}

/// Returns a parser of comma-separated lists, which may be empty.
pub(super) fn list<T>(
    item: impl Fn(&str) -> Result<T, Expected>,
) -> impl Fn(&str) -> Result<Vec<T>, Expected> {
    move |text| match text.trim() {
        "" => Ok(Vec::new()),
        text => text.split(',').map(|part| item(part.trim())).collect(),
    }
}

/// Parses a network in CIDR notation. A single address becomes a network of one address.
pub(super) fn network(text: &str) -> Result<IpNet, Expected> {
    let address = || text.parse().ok().map(|address: std::net::IpAddr| address.into());
    text.parse()
        .ok()
        .or_else(address)
        // With host bits after the mask, the intended network is unclear. The prefix /0 would trust every address.
        .filter(|network: &IpNet| network.trunc() == *network && network.prefix_len() > 0)
        .ok_or("addresses or networks such as 10.0.0.7, 10.1.0.0/16 or fd00::/8".into())
}

/// Parses a number that consists of digits only; `str::parse` would also accept `+5`.
fn digits<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}
