//! Invalid settings: exit code 2, the variable is named, and its value appears nowhere.

use std::process::Command;

use base64::prelude::{BASE64_STANDARD, Engine};
use domain::testing::redis_url;

use crate::server::{TestDeployment, run, text};

/// Text that every invalid value contains.
const CANARY: &str = "canary9f2c";

fn assert_faulty(command: Command, names: &[&str]) {
    let what = format!("{command:?}");
    let output = run(command, "");
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    for name in names {
        assert!(stderr.contains(name), "{name} is not named: {stderr}");
    }
    assert!(!stderr.contains(CANARY) && !stdout.contains(CANARY), "{what}: {stdout}{stderr}");
}

#[tokio::test]
async fn a_wrong_value_is_named_and_never_shown() {
    let deployment = TestDeployment::new().await;
    let weak = BASE64_STANDARD.encode(format!("{CANARY} {CANARY} {CANARY} {CANARY}"));
    let (weak, short) = (format!("{CANARY}:{weak}"), format!("k:{CANARY}"));
    let same = format!("k:{}", deployment.jwt.text());
    for (name, value) in [
        ("ENVIRONMENT", CANARY),
        ("LISTEN_ADDR", CANARY),
        ("HEALTH_ADDR", "canary9f2c:99999"),
        ("DATABASE_URL", "mysql://canary9f2c:canary9f2c@localhost/x"),
        ("DATABASE_URL", "postgres://canary9f2c:canary9f2c@"),
        ("DATABASE_OWNER_URL", CANARY),
        ("DATABASE_POOL_SIZE", "0canary9f2c"),
        ("REDIS_URL", "http://canary9f2c/"),
        ("JWT_KEYS", weak.as_str()),
        ("JWT_KEYS", short.as_str()),
        ("JWT_KEYS", CANARY),
        ("ENCRYPTION_KEYS", CANARY),
        ("ENCRYPTION_KEYS", same.as_str()),
        ("CORS_ORIGINS", "https://canary9f2c/path"),
        ("CORS_ORIGINS", "*"),
        ("TRUSTED_PROXIES", CANARY),
        ("TRUSTED_PROXIES", "0.0.0.0/0"),
        ("BEHIND_TLS_PROXY", CANARY),
        ("CONNECTIONS_PER_ADDRESS", "0"),
        ("AUTH_LIMIT", "10/canary9f2c"),
        ("AUTH_LIMIT", "0/minute"),
        ("ACCESS_TOKEN_EXPIRE_MINUTES", "61"),
        ("REFRESH_TOKEN_EXPIRE_DAYS", "canary9f2c"),
        ("ARGON2_M_KIB", "1024"),
        ("ARGON2_T", "1"),
        ("GRAPHQL_INTROSPECTION", CANARY),
        ("GRAPHQL_ALLOWLIST", CANARY),
        ("LOG_FORMAT", CANARY),
        ("LOG_LEVEL", CANARY),
        ("JWT_KEYS_FILE", "/nowhere/canary9f2c"),
    ] {
        let mut command = deployment.command(&["api"]);
        if name == "JWT_KEYS_FILE" {
            command.env_remove("JWT_KEYS");
        }
        command.env(name, value);
        assert_faulty(command, &[name]);
    }
}

#[tokio::test]
async fn all_faults_are_told_at_once() {
    let deployment = TestDeployment::new().await;
    let mut command = deployment.command(&["api"]);
    command.envs([("AUTH_LIMIT", CANARY), ("LOG_LEVEL", CANARY), ("LISTEN_ADDR", CANARY)]);
    assert_faulty(command, &["AUTH_LIMIT", "LOG_LEVEL", "LISTEN_ADDR"]);
}

#[tokio::test]
async fn the_api_needs_its_settings() {
    let deployment = TestDeployment::new().await;
    for name in ["DATABASE_URL", "REDIS_URL", "JWT_KEYS", "ENCRYPTION_KEYS"] {
        let mut command = deployment.command(&["api"]);
        command.env_remove(name);
        assert_faulty(command, &[name]);
        let mut command = deployment.command(&["api"]);
        command.env(name, "");
        assert_faulty(command, &[name]);
    }
}

#[tokio::test]
async fn production_refuses_what_is_unsafe() {
    let deployment = TestDeployment::new().await;
    let production = |settings: &[(&str, &str)]| {
        let mut command = deployment.command(&["api"]);
        command.env("ENVIRONMENT", "production").envs(settings.iter().copied());
        command
    };
    assert_faulty(production(&[("LOG_LEVEL", "debug")]), &["LOG_LEVEL"]);
    assert_faulty(production(&[("LISTEN_ADDR", "0.0.0.0:0")]), &["LISTEN_ADDR"]);
    let proxied = [("LISTEN_ADDR", "0.0.0.0:0"), ("BEHIND_TLS_PROXY", "true")];
    assert_faulty(production(&proxied), &["LISTEN_ADDR"]);
}

#[tokio::test]
async fn a_login_that_row_security_would_not_hold_does_not_serve() {
    let deployment = TestDeployment::new().await;
    let name = deployment.db.url.rsplit_once('/').unwrap().1;
    for variable in ["TEST_ADMIN_URL", "DATABASE_OWNER_URL"] {
        let url = std::env::var(variable).unwrap();
        let url = format!("{}/{name}", url.rsplit_once('/').unwrap().0);
        let mut command = deployment.command(&["api"]);
        command.env("DATABASE_URL", &url);
        let output = run(command, "");
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{variable}: {stderr}");
        assert!(!stderr.contains("api.address"), "{variable}: it served");
        let password = url.split(['/', ':', '@']).nth(4).unwrap();
        assert!(password.len() > 20 && !stderr.contains(password), "{stderr}");
        assert!(!stderr.contains(&redis_url()), "{stderr}");
    }
}
