//! Rules that production adds to those of single settings: what is unsafe where others can reach the stores or the API.

use std::net::IpAddr;

use ipnet::IpNet;
use tokio_postgres::config::{Host, SslMode};
use url::Url;

use super::{Config, DatabaseUrl, Rate, Secret};

/// Maximum rate of sign-ins, and of compliance runs and trials, per minute.
const MAX_PER_MINUTE: u64 = 120;

/// Returns the unsafe settings with their problems, each worded to follow the name of the variable.
pub(super) fn unsafe_settings(config: &Config) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let databases = [
        ("DATABASE_URL", &config.database_url),
        ("DATABASE_OWNER_URL", &config.database_owner_url),
    ];
    for (name, url) in databases {
        if let Some(problem) = url.as_ref().and_then(|url| database(url, config.database_plaintext))
        {
            found.push((name, problem));
        }
    }
    let redis_url = config.redis_url.as_ref().map(Secret::expose);
    if let Some(problem) = redis_url.and_then(|url| redis(url, config.redis_plaintext)) {
        found.push(("REDIS_URL", problem));
    }
    if is_wider_than_8(&config.http.trusted_proxies) {
        let problem = "expected networks that together are no wider than a /8: every client in them can claim any address";
        found.push(("TRUSTED_PROXIES", problem.to_owned()));
    }
    for origin in &config.http.cors_origins {
        if origin.as_str().starts_with("http://") {
            let problem = "expected https:// origins in production: a page that came over plain HTTP may be anybody's";
            found.push(("CORS_ORIGINS", problem.to_owned()));
            break;
        }
    }
    if config.http.hsts.is_some_and(|hsts| hsts.max_age.is_zero()) {
        let problem = "expected more than 0 in production: browsers would stop requiring HTTPS";
        found.push(("HSTS_MAX_AGE", problem.to_owned()));
    }
    for (name, rate) in
        [("AUTH_LIMIT", config.limits.auth), ("SCAN_LIMIT", config.limits.compliance_runs)]
    {
        if per_minute(rate) > MAX_PER_MINUTE {
            let problem = format!("expected at most {MAX_PER_MINUTE}/minute in production");
            found.push((name, problem));
        }
    }
    if config.log.filter.is_off() {
        let problem =
            "expected at least error in production: without a log nobody learns what failed";
        found.push(("LOG_LEVEL", problem.to_owned()));
    }
    found
}

/// Returns the problem of a database URL that leads to another machine without verified TLS, or that has no password.
fn database(url: &DatabaseUrl, is_plaintext_allowed: bool) -> Option<String> {
    let options: tokio_postgres::Config = url.url.expose().parse().ok()?;
    let hosts = || {
        options.get_hosts().iter().filter_map(|host| match host {
            Host::Tcp(name) => Some(name.as_str()),
            #[cfg(unix)]
            Host::Unix(_) => None,
        })
    };
    if hosts().any(|host| !is_loopback(host))
        && options.get_ssl_mode() != SslMode::Require
        && !is_plaintext_allowed
    {
        return Some(
            "expected sslmode=require or verify-full in production, because the database is on another machine; if the \
             network between is private, set DATABASE_PLAINTEXT=true"
                .to_owned(),
        );
    }
    (hosts().next().is_some() && options.get_password().is_none())
        .then(|| "expected a URL with a password in production".to_owned())
}

fn redis(url: &Url, is_plaintext_allowed: bool) -> Option<String> {
    let host = url.host_str().filter(|_| url.scheme() != "redis+unix")?;
    if url.scheme() == "redis" && !is_loopback(host) && !is_plaintext_allowed {
        return Some(
            "expected rediss:// in production, because Redis is on another machine; if the network between is private, \
             set REDIS_PLAINTEXT=true"
                .to_owned(),
        );
    }
    url.password().is_none().then(|| "expected a URL with a password in production".to_owned())
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Returns true if the networks of one address family have more addresses together than a /8.
fn is_wider_than_8(networks: &[IpNet]) -> bool {
    let aggregated = IpNet::aggregate(&networks.to_vec());
    let share = |bits: u8| {
        let networks = aggregated.iter().filter(|network| network.max_prefix_len() == bits);
        networks.map(|network| 0.5_f64.powi(i32::from(network.prefix_len()))).sum::<f64>()
    };
    share(32).max(share(128)) > 0.5_f64.powi(8)
}

fn per_minute(rate: Rate) -> u64 {
    (u64::from(rate.count.get()) * 60).div_ceil(rate.per.as_secs().max(1))
}
