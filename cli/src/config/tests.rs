//! Table-driven tests of the whole configuration. The file is long, because the table has a row per kind of invalid
//! value.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

use super::*;

const KEY_A: &str = "a:9f1c0de2b7a4536881ee0f7d2c93b5a64417fa0be8d15c6c723930fedcab8e51";
const KEY_B: &str = "b:pX2vT0nq8RkYz5wLh3cJmB7sUeD1aGfKi4oN6tVxQyE";
const DATABASE: &str = "postgres://web:tulip-4711@db.internal:5432/ops?sslmode=require";
const REDIS: &str = "rediss://:orchid-4711@cache.internal:6379/0";
const CANARY: &str = "canary7";
/// Words that occur both in the invalid values below and in the fixed text of error messages.
const MESSAGE_WORDS: &[&str] = &[
    "prod",
    "postgres",
    "redis",
    "https",
    "unix",
    "localhost",
    "8080",
    "minute",
    "null",
    "sslmode",
    "path",
    "user",
    "host",
];

fn with(command: Command, given: &[(&str, &str)]) -> Result<Config, Vec<SettingError>> {
    let given: HashMap<&str, &str> = given.iter().copied().collect();
    Config::read(command, |name| given.get(name).map(|value| (*value).to_owned()))
}

fn production<'a>(more: &[(&'a str, &'a str)]) -> Result<Config, Vec<SettingError>> {
    let mut given = vec![
        ("ENVIRONMENT", "production"),
        ("DATABASE_URL", DATABASE),
        ("REDIS_URL", REDIS),
        ("JWT_KEYS", KEY_A),
        ("ENCRYPTION_KEYS", KEY_B),
    ];
    given.extend_from_slice(more);
    with(Command::Api, &given)
}

fn variables(errors: &[SettingError]) -> Vec<&str> {
    errors.iter().map(|error| error.variable.as_str()).collect()
}

/// A temporary file, removed when the test ends.
struct TemporaryFile(PathBuf);

impl TemporaryFile {
    fn new(name: &str, content: &[u8], mode: u32) -> Self {
        let path = std::env::temp_dir().join(format!("config-{}-{name}", std::process::id()));
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        fs::remove_file(&self.0).unwrap();
    }
}

#[test]
fn nothing_given_is_a_working_development() {
    let config = with(Command::Up, &[]).unwrap();
    assert_eq!(config.environment, Environment::Development);
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.health.to_string(), "127.0.0.1:8092");
    assert_eq!(config.data_dir, PathBuf::from(".sentryops"));
    assert!(config.database_url.is_none() && config.redis_url.is_none());
    assert!(config.jwt_keys.is_none() && config.encryption_keys.is_none());
    assert_eq!(config.database_pool_size, 16);
    assert_eq!(config.http.cors_origins[0].as_str(), "http://localhost:3000");
    assert_eq!(config.http.cors_origins.len(), 1);
    assert!(config.http.trusted_proxies.is_empty() && !config.http.is_behind_tls_proxy);
    assert_eq!(config.http.hsts, None);
    assert_eq!(config.limits.auth, "10/minute".parse().unwrap());
    assert_eq!(config.limits.login_ip_block, Duration::from_mins(15));
    assert_eq!(config.sessions.access_token_lifetime, Duration::from_mins(30));
    assert_eq!(config.sessions.refresh_token_lifetime, Duration::from_hours(14 * 24));
    assert_eq!(config.sessions.idle, None);
    let argon2 = config.argon2;
    assert_eq!((argon2.memory_kib, argon2.passes, argon2.lanes), (19_456, 2, 1));
    assert!(config.graphql.introspection && config.graphql.playground);
    assert!(matches!(config.graphql.allowlist, Allowlist::Off));
}

#[test]
fn production_has_stricter_defaults() {
    let config = production(&[]).unwrap();
    assert!(config.http.cors_origins.is_empty());
    let hsts = Hsts { max_age: Duration::from_hours(2 * 365 * 24), preload: true };
    assert_eq!(config.http.hsts, Some(hsts));
    let argon2 = config.argon2;
    assert_eq!((argon2.memory_kib, argon2.passes, argon2.lanes), (65_536, 3, 1));
    assert!(!config.graphql.introspection && !config.graphql.playground);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.jwt_keys.unwrap().keys()[0].kid, "a");
    assert!(config.database_url.unwrap().url.expose().contains("web"));
}

#[test]
fn everything_can_be_set() {
    let config = with(
        Command::Up,
        &[
            ("LISTEN_ADDR", "[::1]:0"),
            ("HEALTH_ADDR", "[::1]:0"),
            ("DATABASE_URL", "postgresql://web@%2Frun%2Fpg/ops"),
            ("REDIS_URL", "redis+unix:///run/redis.sock"),
            ("CORS_ORIGINS", "https://ops.example.com, http://[::1]:3000"),
            ("TRUSTED_PROXIES", "10.0.0.7, 10.1.0.0/16,fd00::/8,::1"),
            ("AUTH_LIMIT", "3 / second"),
            ("SESSION_IDLE_MINUTES", "60"),
            ("ARGON2_MAX_PARALLEL", "3"),
            ("LOG_LEVEL", "warn,api=trace"),
            ("LOG_FORMAT", "text"),
        ],
    )
    .unwrap();
    assert_eq!(config.http.cors_origins.len(), 2);
    let proxies: Vec<_> = config.http.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(proxies, ["10.0.0.7/32", "10.1.0.0/16", "fd00::/8", "::1/128"]);
    assert_eq!(config.limits.auth.per, Duration::from_secs(1));
    assert_eq!(config.sessions.idle, Some(Duration::from_hours(1)));
    assert_eq!(config.argon2.max_parallel.get(), 3);
    assert_eq!(config.log.format, LogFormat::Text);
}

#[test]
fn a_bad_value_names_its_variable_and_is_never_shown() {
    let check = |name: &str, value: &str| {
        let errors = with(Command::Up, &[(name, value)]).expect_err(name);
        assert_eq!(variables(&errors), [name], "{value}");
        let text = render(&errors);
        assert!(text.contains("expected"), "{text}");
        for part in value.split(|character: char| !character.is_ascii_alphanumeric()) {
            let is_ours = MESSAGE_WORDS.contains(&part) || part.len() < 4;
            assert!(is_ours || !text.contains(part), "{value}: {text}");
        }
    };
    for setting in SETTINGS.iter().filter(|setting| !setting.name.ends_with("_FILE")) {
        if setting.name != "DATA_DIR" {
            check(setting.name, CANARY);
            check(setting.name, &format!("{CANARY}\n{CANARY}"));
            check(setting.name, &format!("{CANARY},k:{CANARY}"));
        }
        check(setting.name, &format!("{CANARY}\u{fffd}"));
    }
    for (name, value) in [
        ("ENVIRONMENT", "prod"),
        ("ENVIRONMENT", "Production"),
        ("LISTEN_ADDR", ":8080"),
        ("LISTEN_ADDR", "localhost:8080"),
        ("LISTEN_ADDR", "127.0.0.1"),
        ("LISTEN_ADDR", "127.0.0.1:80800"),
        ("HEALTH_ADDR", "127.0.0.1:8080"),
        ("DATABASE_URL", "mysql://web:canary7@host/ops"),
        ("DATABASE_URL", "host=canary7 user=web"),
        ("DATABASE_URL", "postgres:///canary7"),
        ("DATABASE_URL", "postgres://web:canary7@host/ops?sslmode=canary7"),
        ("DATABASE_POOL_SIZE", "0"),
        ("DATABASE_POOL_SIZE", "1001"),
        ("DATABASE_POOL_SIZE", "+5"),
        ("DATABASE_POOL_SIZE", "-5"),
        ("DATABASE_POOL_SIZE", "99999999999999999999999"),
        ("REDIS_URL", "http://canary7/"),
        ("REDIS_URL", "redis+unix://"),
        ("CORS_ORIGINS", "*"),
        ("CORS_ORIGINS", "null"),
        ("CORS_ORIGINS", "https://*.canary7.test"),
        ("CORS_ORIGINS", "https://canary7.test/"),
        ("CORS_ORIGINS", "https://canary7.test/path"),
        ("CORS_ORIGINS", "https://canary7.test:443"),
        ("CORS_ORIGINS", "https://CANARY7.test"),
        ("CORS_ORIGINS", "https://user:canary7@host.test"),
        ("CORS_ORIGINS", "ftp://canary7.test"),
        ("CORS_ORIGINS", "https://a.test,,https://b.test"),
        ("TRUSTED_PROXIES", "10.0.0.1/8"),
        ("TRUSTED_PROXIES", "0.0.0.0/0"),
        ("TRUSTED_PROXIES", "::/0"),
        ("TRUSTED_PROXIES", "10.0.0.0/33"),
        ("TRUSTED_PROXIES", "proxy.canary7"),
        ("BEHIND_TLS_PROXY", "yes"),
        ("BEHIND_TLS_PROXY", "1"),
        ("AUTH_LIMIT", "0/minute"),
        ("AUTH_LIMIT", "10"),
        ("AUTH_LIMIT", "10/fortnight"),
        ("AUTH_LIMIT", "-1/minute"),
        ("LOGIN_IP_BLOCK_MINUTES", "0"),
        ("ACCESS_TOKEN_EXPIRE_MINUTES", "0"),
        ("ACCESS_TOKEN_EXPIRE_MINUTES", "61"),
        ("ACCESS_TOKEN_EXPIRE_MINUTES", "30m"),
        ("REFRESH_TOKEN_EXPIRE_DAYS", "91"),
        ("SESSION_MAX_PER_USER", "0"),
        ("ARGON2_M_KIB", "1024"),
        ("ARGON2_M_KIB", "19455"),
        ("ARGON2_T", "1"),
        ("ARGON2_P", "0"),
        ("GRAPHQL_ALLOWLIST", "on"),
        ("LOG_LEVEL", "inof"),
        ("LOG_LEVEL", "api=canary7"),
        ("LOG_FORMAT", "xml"),
        ("JWT_KEYS", "canary7:canary7"),
        ("JWT_KEYS", "Canary7:9f1c0de2b7a4536881ee0f7d2c93b5a64417fa0be8d15c6c723930fedcab8e51"),
        ("JWT_KEYS", "canary7:0000000000000000000000000000000000000000000000000000000000000000"),
        ("ENCRYPTION_KEYS", "canary7:change-me-change-me-change-me-change-me-canary7"),
    ] {
        check(name, value);
    }
}

#[test]
fn all_faults_come_at_once_and_none_comes_twice() {
    let wrong: Vec<_> = SETTINGS
        .iter()
        .filter(|setting| !matches!(setting.name, "DATA_DIR" | "GRAPHQL_ALLOWLIST_FILE"))
        .map(|setting| (setting.name, "canary7!"))
        .collect();
    let errors = with(Command::Api, &wrong).unwrap_err();
    let named: BTreeSet<_> = variables(&errors).into_iter().collect();
    assert_eq!(named.len(), errors.len());
    assert_eq!(named, wrong.iter().map(|(name, _)| *name).collect());
    assert!(!render(&errors).contains("canary7"));
}

#[test]
fn each_setting_of_the_table_is_read_and_no_other() {
    let looked_up = RefCell::new(BTreeSet::new());
    let list = TemporaryFile::new("list", br#"{"x": "y"}"#, 0o600);
    let _ = Config::read(Command::Api, |name| {
        looked_up.borrow_mut().insert(name.to_owned());
        match name {
            "GRAPHQL_ALLOWLIST" => Some("log".to_owned()),
            "GRAPHQL_ALLOWLIST_FILE" => Some(list.path().to_owned()),
            _ => None,
        }
    });
    let known: BTreeSet<_> = SETTINGS
        .iter()
        .flat_map(|setting| [Some(setting.name.to_owned()), setting.file_variable()])
        .flatten()
        .collect();
    assert_eq!(looked_up.into_inner(), known);
}

#[test]
fn each_command_requires_what_it_cannot_do_without() {
    let check = |command, environment, missing: &[&str]| {
        let outcome = with(command, &[("ENVIRONMENT", environment)]);
        let errors = outcome.err().unwrap_or_default();
        assert_eq!(variables(&errors), missing, "{command:?} in {environment}");
    };
    let all = ["DATABASE_URL", "REDIS_URL", "JWT_KEYS", "ENCRYPTION_KEYS"];
    check(Command::Api, "development", &all);
    check(Command::Api, "production", &all);
    check(Command::Up, "development", &[]);
    check(Command::Up, "production", &all[2..]);
    for command in [Command::Migrate, Command::Services, Command::Admin, Command::Schema] {
        check(command, "production", &[]);
    }
}

#[test]
fn an_empty_variable_counts_as_absent() {
    let all: Vec<_> = SETTINGS.iter().map(|setting| (setting.name, "")).collect();
    assert_eq!(with(Command::Up, &all).unwrap().listen.port(), 8080);
}

#[test]
fn a_file_gives_the_value_without_its_last_newline() {
    let keys = TemporaryFile::new("keys", format!("{KEY_A}\n").as_bytes(), 0o600);
    let address = TemporaryFile::new("address", b"127.0.0.1:9000\r\n", 0o644);
    let config = production(&[
        ("JWT_KEYS", ""),
        ("JWT_KEYS_FILE", keys.path()),
        ("LISTEN_ADDR_FILE", address.path()),
    ])
    .unwrap();
    assert_eq!(config.jwt_keys.unwrap().keys()[0].kid, "a");
    assert_eq!(config.listen.port(), 9000);
}

#[test]
fn a_bad_file_names_its_variable_and_neither_path_nor_content() {
    let check = |given: &[(&str, &str)], variable: &str, text_part: &str| {
        let errors = with(Command::Up, given).unwrap_err();
        assert_eq!(variables(&errors), [variable]);
        let text = render(&errors);
        assert!(text.contains(text_part), "{text}");
        assert!(!text.contains(CANARY), "{text}");
    };
    let empty = TemporaryFile::new("canary7-empty", b"\n", 0o600);
    let wrong = TemporaryFile::new("canary7-wrong", b"canary7\n", 0o600);
    let two = TemporaryFile::new("canary7-two", b"info\ncanary7\n", 0o600);
    let binary = TemporaryFile::new("canary7-binary", b"canary7\xff", 0o600);
    check(&[("JWT_KEYS_FILE", "/nowhere/canary7")], "JWT_KEYS_FILE", "no such file");
    check(&[("JWT_KEYS_FILE", "/")], "JWT_KEYS_FILE", "folder");
    check(&[("JWT_KEYS_FILE", empty.path())], "JWT_KEYS_FILE", "not empty");
    check(&[("JWT_KEYS_FILE", wrong.path())], "JWT_KEYS_FILE", "key 1");
    check(&[("LOG_LEVEL_FILE", two.path())], "LOG_LEVEL_FILE", "one line");
    check(&[("LOG_LEVEL_FILE", binary.path())], "LOG_LEVEL_FILE", "not UTF-8");
    check(
        &[("LOG_LEVEL", "info"), ("LOG_LEVEL_FILE", two.path())],
        "LOG_LEVEL",
        "either this or LOG_LEVEL_FILE",
    );
}

#[test]
fn production_refuses_secrets_in_files_that_others_can_read() {
    for mode in [0o640, 0o604, 0o644] {
        let keys = TemporaryFile::new(&format!("open-{mode:o}"), KEY_A.as_bytes(), mode);
        let given = [("JWT_KEYS", ""), ("JWT_KEYS_FILE", keys.path())];
        let errors = production(&given).unwrap_err();
        assert_eq!(variables(&errors), ["JWT_KEYS_FILE"]);
        assert!(render(&errors).contains("chmod 600"));
        with(Command::Up, &given).unwrap();
    }
}

#[test]
fn production_refuses_secrets_in_files_that_others_can_write_and_in_no_files() {
    for mode in [0o620, 0o602] {
        let keys = TemporaryFile::new(&format!("written-{mode:o}"), KEY_A.as_bytes(), mode);
        let errors = production(&[("JWT_KEYS", ""), ("JWT_KEYS_FILE", keys.path())]).unwrap_err();
        assert_eq!(variables(&errors), ["JWT_KEYS_FILE"], "{mode:o}");
    }
    let fifo = std::env::temp_dir().join(format!("config-{}-fifo", std::process::id()));
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .unwrap();
    let given = [("JWT_KEYS", ""), ("JWT_KEYS_FILE", fifo.to_str().unwrap())];
    let errors = production(&given).unwrap_err();
    fs::remove_file(&fifo).unwrap();
    assert!(render(&errors).contains("no regular file"), "{}", render(&errors));
}

/// Settings of production that are unsafe, each with the variable that is named.
const UNSAFE: &[(&str, &str)] = &[
    ("DATABASE_URL", "postgres://web:tulip-4711@db.internal/ops"),
    ("DATABASE_URL", "postgres://web:tulip-4711@db.internal/ops?sslmode=disable"),
    ("DATABASE_URL", "postgres://web:tulip-4711@db.internal/ops?sslmode=prefer"),
    ("DATABASE_URL", "postgres://web:tulip-4711@127.0.0.1,10.0.0.7/ops"),
    ("DATABASE_URL", "postgres://web@db.internal/ops?sslmode=require"),
    ("DATABASE_URL", "postgres://web@127.0.0.1/ops"),
    ("DATABASE_OWNER_URL", "postgres://owner:tulip-4711@db.internal/ops"),
    ("REDIS_URL", "redis://:orchid-4711@cache.internal"),
    ("REDIS_URL", "rediss://cache.internal"),
    ("REDIS_URL", "redis://127.0.0.1"),
    ("TRUSTED_PROXIES", "0.0.0.0/1,128.0.0.0/1"),
    ("TRUSTED_PROXIES", "10.0.0.0/8,192.168.0.0/16"),
    ("TRUSTED_PROXIES", "fc00::/7"),
    ("CORS_ORIGINS", "https://ops.example.com,http://ops.example.com"),
    ("AUTH_LIMIT", "1000000/second"),
    ("AUTH_LIMIT", "3/second"),
    ("SCAN_LIMIT", "121/minute"),
    ("LOG_LEVEL", "off"),
    ("HSTS_MAX_AGE", "0"),
];

#[test]
fn production_refuses_what_is_unsafe_and_names_it() {
    for (name, value) in UNSAFE {
        let errors = production(&[(name, value)]).unwrap_err();
        assert_eq!(variables(&errors), [*name], "{value}");
        assert!(value.len() < 4 || !render(&errors).contains(value), "{name}");
        with(Command::Up, &[(name, value)]).unwrap();
    }
}

#[test]
fn production_takes_what_is_safe() {
    for (name, value) in [
        ("DATABASE_URL", "postgres://web:tulip-4711@db.internal/ops?sslmode=verify-full"),
        ("DATABASE_URL", "postgres://web:tulip-4711@127.0.0.1/ops"),
        ("DATABASE_URL", "postgres://web:tulip-4711@[::1]/ops"),
        ("DATABASE_URL", "postgres://web@%2Frun%2Fpostgresql/ops"),
        ("REDIS_URL", "redis://:orchid-4711@localhost"),
        ("REDIS_URL", "redis+unix:///run/redis.sock"),
        ("TRUSTED_PROXIES", "10.0.0.0/8"),
        ("TRUSTED_PROXIES", "10.0.0.0/9,10.128.0.0/9,10.1.2.3"),
        ("AUTH_LIMIT", "2/second"),
        ("AUTH_LIMIT", "172800/day"),
        ("LOG_LEVEL", "error"),
        ("LOG_LEVEL", "off,api=warn"),
    ] {
        let config = production(&[(name, value)]);
        assert!(config.is_ok(), "{name}={value}: {:?}", config.err());
    }
}

#[test]
fn a_private_network_needs_no_tls_if_the_operator_says_so() {
    let clear = [
        ("DATABASE_URL", "postgres://web:tulip-4711@postgres/ops"),
        ("REDIS_URL", "redis://:orchid-4711@redis"),
    ];
    assert_eq!(variables(&production(&clear).unwrap_err()), ["DATABASE_URL", "REDIS_URL"]);
    let allowed = [clear[0], clear[1], ("DATABASE_PLAINTEXT", "true"), ("REDIS_PLAINTEXT", "true")];
    production(&allowed).unwrap();
    let without_password = [("DATABASE_URL", "postgres://web@postgres/ops"), allowed[2]];
    assert_eq!(variables(&production(&without_password).unwrap_err()), ["DATABASE_URL"]);
}

#[test]
fn every_unsafe_setting_has_a_line_of_its_own() {
    let bad = [0, 6, 7, 10, 13, 14, 16, 17, 18].map(|index| UNSAFE[index]);
    let errors = production(&bad).unwrap_err();
    let mut named = variables(&errors);
    named.sort_unstable();
    let mut expected = bad.map(|(name, _)| name);
    expected.sort_unstable();
    assert_eq!(named, expected);
}

#[test]
fn a_key_may_not_serve_two_purposes() {
    let rings = format!("{KEY_B},{KEY_A}");
    let errors = production(&[("ENCRYPTION_KEYS", &rings)]).unwrap_err();
    assert_eq!(variables(&errors), ["ENCRYPTION_KEYS"]);
    assert!(render(&errors).contains("JWT_KEYS"));
}

#[test]
fn up_makes_the_keys_that_are_missing_and_finds_them_again() {
    let folder = std::env::temp_dir().join(format!("config-{}-data", std::process::id()));
    let load = || {
        let mut config = with(Command::Up, &[("DATA_DIR", folder.to_str().unwrap())]).unwrap();
        config.generate_missing_keys().unwrap();
        let kid = |ring: Option<KeyRing>| ring.unwrap().keys()[0].kid.clone();
        (kid(config.jwt_keys), kid(config.encryption_keys))
    };
    assert_eq!(load(), load());

    let copied = fs::read_to_string(folder.join("secrets/jwt_keys")).unwrap();
    let given = [("DATA_DIR", folder.to_str().unwrap()), ("ENCRYPTION_KEYS", copied.trim_end())];
    let error = with(Command::Up, &given).unwrap().generate_missing_keys().unwrap_err();
    assert!(error.to_string().contains("in common"));
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn production_serves_the_world_behind_a_tls_proxy_only() {
    let open = ("LISTEN_ADDR", "0.0.0.0:8080");
    let behind = ("BEHIND_TLS_PROXY", "true");
    let proxies = ("TRUSTED_PROXIES", "10.0.0.0/8");
    for given in [vec![open], vec![open, behind], vec![open, proxies]] {
        assert_eq!(variables(&production(&given).unwrap_err()), ["LISTEN_ADDR"]);
    }
    production(&[open, behind, proxies]).unwrap();
    with(Command::Up, &[open]).unwrap();
}

#[test]
fn production_logs_no_details_unless_forced() {
    for level in ["debug", "trace", "warn,api=debug", "info,[span]=trace", "DEBUG", "5"] {
        assert_eq!(variables(&production(&[("LOG_LEVEL", level)]).unwrap_err()), ["LOG_LEVEL"]);
        production(&[("LOG_LEVEL", level), ("LOG_LEVEL_FORCE", "true")]).unwrap();
        with(Command::Up, &[("LOG_LEVEL", level)]).unwrap();
    }
    for level in ["error", "warn,api=info"] {
        production(&[("LOG_LEVEL", level)]).unwrap();
    }
}

#[test]
fn an_allowlist_needs_documents_under_their_own_hash() {
    let list = TemporaryFile::new(
        "allowlist",
        br#"{"7ab1bcfe8e9c0cb9b8b1c5b1c0f1f2d5a1b7d1ae1f1cfc3c79d4a1b0a83f0a3c": "{ canary7 }"}"#,
        0o600,
    );
    let check = |given: &[(&str, &str)]| {
        let errors = with(Command::Up, given).unwrap_err();
        assert_eq!(variables(&errors), ["GRAPHQL_ALLOWLIST_FILE"]);
        assert!(!render(&errors).contains(CANARY));
    };
    check(&[("GRAPHQL_ALLOWLIST", "enforce")]);
    check(&[("GRAPHQL_ALLOWLIST", "log"), ("GRAPHQL_ALLOWLIST_FILE", "/nowhere/canary7")]);
    check(&[("GRAPHQL_ALLOWLIST", "log"), ("GRAPHQL_ALLOWLIST_FILE", list.path())]);

    // printf '{ __typename }' | sha256sum
    let hash = "7f56e67dd21ab3f30d1ff8b7bed08893f0a0db86449836189b361dd1e56ddb4b";
    let good = TemporaryFile::new(
        "good-list",
        format!(r#"{{"{hash}": "{{ __typename }}"}}"#).as_bytes(),
        0o600,
    );
    let given = [("GRAPHQL_ALLOWLIST", "enforce"), ("GRAPHQL_ALLOWLIST_FILE", good.path())];
    let config = with(Command::Up, &given).unwrap();
    let Allowlist::Enforce(documents) = config.graphql.allowlist else { panic!("not enforced") };
    assert_eq!(documents[hash], "{ __typename }");
}

#[test]
fn debug_shows_no_secret() {
    let text = format!("{:?}", production(&[]).unwrap());
    for secret in ["tulip", "orchid", "9f1c0de2", "pX2vT0nq"] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[test]
fn a_terminal_gets_text_in_development_only() {
    assert_eq!(LogFormat::default_for(Environment::Development, true), LogFormat::Text);
    assert_eq!(LogFormat::default_for(Environment::Development, false), LogFormat::Json);
    assert_eq!(LogFormat::default_for(Environment::Production, true), LogFormat::Json);
}
