//! All settings, in one table.
//!
//! The reader takes the defaults from the table, `doctor --settings` prints the table, and a test compares the
//! documentation with the table. Given up: a derive macro, which would hide the forty lines that operators look up.

use std::fmt::Write;

use strsim::levenshtein;

use super::{Command, Environment};

/// A setting: an environment variable with default and description.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    /// Name of the variable, e.g. `LISTEN_ADDR`.
    pub name: &'static str,
    /// Value that applies when the variable is not set.
    pub default: SettingDefault,
    /// Commands that do not start without the setting.
    pub required: Required,
    /// True if other users of the machine must not read the value.
    pub is_secret: bool,
    /// Description for the operator, one or two sentences.
    pub description: &'static str,
}

/// Default of a setting, fixed or by environment.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SettingDefault {
    /// A default value, parsed like a value that is set.
    Fixed(&'static str),
    /// Different default values in development and in production.
    PerEnvironment {
        /// Default value in the development environment.
        development: &'static str,
        /// Default value in the production environment.
        production: &'static str,
    },
    /// No default value. The text describes the behaviour without the setting, for the documentation.
    Unset(&'static str),
}

/// Commands that do not start without a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Required {
    /// Not required by any command.
    Never,
    /// Required by `sentryops api` and `sentryops worker`.
    Serving,
    /// Required by `sentryops api`, and by `sentryops up` in production.
    ApiAndProduction,
    /// Required when `GRAPHQL_ALLOWLIST` is not `off`.
    Allowlist,
}

impl Setting {
    /// Returns the setting with this name.
    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// Returns the variable that names a file with the value, e.g. `JWT_KEYS_FILE`; `None` for the allowlist's two
    /// settings.
    pub(crate) fn file_variable(&self) -> Option<String> {
        let variable = format!("{}_FILE", self.name);
        (!self.name.ends_with("_FILE") && Self::find(&variable).is_none()).then_some(variable)
    }

    /// Returns the default value; `None` if the setting has none.
    pub(crate) const fn default_in(&self, environment: Environment) -> Option<&'static str> {
        match (self.default, environment) {
            (SettingDefault::Fixed(text), _)
            | (
                SettingDefault::PerEnvironment { development: text, .. },
                Environment::Development,
            )
            | (SettingDefault::PerEnvironment { production: text, .. }, Environment::Production) => {
                Some(text)
            }
            (SettingDefault::Unset(_), _) => None,
        }
    }
}

impl Required {
    /// Returns true if `command` requires the setting. For `Allowlist` it returns false, because `assemble` checks that
    /// case.
    pub(crate) const fn applies(self, command: Command, environment: Environment) -> bool {
        match self {
            Self::Never | Self::Allowlist => false,
            Self::Serving => matches!(command, Command::Api | Command::Worker),
            Self::ApiAndProduction => match command {
                Command::Api => true,
                Command::Up => matches!(environment, Environment::Production),
                Command::Worker
                | Command::Migrate
                | Command::Services
                | Command::Admin
                | Command::Schema
                | Command::Doctor => false,
            },
        }
    }

    /// Text of the column "required by" in the table.
    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::Never => "",
            Self::Serving => "`api`, `worker`",
            Self::ApiAndProduction => "`api`; `up` in production",
            Self::Allowlist => "`GRAPHQL_ALLOWLIST` other than `off`",
        }
    }
}

/// Renders the table of all settings in Markdown, exactly as in the documentation.
pub(crate) fn markdown() -> String {
    let mut table =
        String::from("| variable | default | required by | meaning |\n|---|---|---|---|\n");
    for setting in SETTINGS {
        let code = |text: &str| if text.is_empty() { "none".into() } else { format!("`{text}`") };
        let default = match setting.default {
            SettingDefault::Fixed(text) => code(text),
            SettingDefault::PerEnvironment { development, production } => {
                format!("{}; production {}", code(development), code(production))
            }
            SettingDefault::Unset(behaviour) => behaviour.to_owned(),
        };
        let (name, required) = (setting.name, setting.required.describe());
        let description = setting.description;
        // Writing to a String cannot fail.
        let _ = writeln!(table, "| `{name}` | {default} | {required} | {description} |");
    }
    table
}

/// Returns each variable that is probably a misspelt setting, with the name of the most similar setting.
pub(crate) fn probable_typos<'a>(
    names: impl IntoIterator<Item = &'a str>,
) -> Vec<(&'a str, String)> {
    let known_names: Vec<String> = SETTINGS
        .iter()
        .flat_map(|setting| [Some(setting.name.to_owned()), setting.file_variable()])
        .flatten()
        .collect();
    names
        .into_iter()
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
        .filter(|name| !known_names.iter().any(|known| known == name))
        .filter_map(|name| {
            let is_similar = |known: &&String| levenshtein(name, known) <= 2;
            let setting_name = known_names
                .iter()
                .filter(is_similar)
                .min_by_key(|known| levenshtein(name, known))?;
            Some((name, setting_name.clone()))
        })
        .collect()
}

const fn public_setting(
    name: &'static str,
    default: SettingDefault,
    required: Required,
    description: &'static str,
) -> Setting {
    Setting { name, default, required, is_secret: false, description }
}

const fn secret_setting(
    name: &'static str,
    behaviour: &'static str,
    required: Required,
    description: &'static str,
) -> Setting {
    Setting {
        name,
        default: SettingDefault::Unset(behaviour),
        required,
        is_secret: true,
        description,
    }
}

use Required::{Allowlist, ApiAndProduction, Never, Serving};
use SettingDefault::{Fixed, PerEnvironment, Unset};

/// Table of all settings, in the order in which operators look for them.
#[rustfmt::skip]
pub(crate) const SETTINGS: &[Setting] = &[
    public_setting("ENVIRONMENT", Fixed("development"), Never, "`development` or `production`; production has stricter defaults and rejects unsafe settings."),
    public_setting("LISTEN_ADDR", Fixed("127.0.0.1:8080"), Never, "IP address and port of the API. In production, any address but loopback requires `BEHIND_TLS_PROXY` and `TRUSTED_PROXIES`."),
    public_setting("HEALTH_ADDR", Fixed("127.0.0.1:8092"), Never, "IP address and port of `/livez`, `/readyz` and `/metrics`."),
    public_setting("DATA_DIR", Fixed(".sentryops"), Never, "Folder that holds the private Postgres and Redis and the generated secrets."),
    secret_setting("DATABASE_URL", "private Postgres", Serving, "PostgreSQL URL of the login that the API and the workers use; it must be neither owner nor superuser."),
    secret_setting("DATABASE_OWNER_URL", "private Postgres", Never, "PostgreSQL URL of the owner, used by `migrate` and `up`; the API and the workers do not need it."),
    public_setting("DATABASE_POOL_SIZE", Fixed("16"), Never, "Maximum connections to Postgres per process (1 to 1000). The API uses half as many more for sign-in and authentication, so that no query can exhaust these."),
    secret_setting("REDIS_URL", "private Redis", Serving, "URL of Redis or Valkey: `redis://`, `rediss://` (TLS) or `redis+unix://`."),
    public_setting("DATABASE_PLAINTEXT", Fixed("false"), Never, "`true` allows a production without TLS to a Postgres on another machine, for a private network."),
    public_setting("REDIS_PLAINTEXT", Fixed("false"), Never, "`true` allows a production without TLS to a Redis on another machine, for a private network."),
    secret_setting("JWT_KEYS", "generated by `up`", ApiAndProduction, "Key ring, `kid:secret[,kid:secret…]`, that signs access tokens; it must be the same on every replica."),
    secret_setting("ENCRYPTION_KEYS", "generated by `up`", ApiAndProduction, "Key ring from which the keys of page cursors are derived; it must be the same on every replica and share no key with `JWT_KEYS`."),
    public_setting("CORS_ORIGINS", PerEnvironment { development: "http://localhost:3000", production: "" }, Never, "Comma-separated origins whose pages may call the API, each exactly `scheme://host[:port]`."),
    public_setting("TRUSTED_PROXIES", Fixed(""), Never, "Comma-separated addresses or networks (CIDR) whose `X-Forwarded-For` header is trusted."),
    public_setting("BEHIND_TLS_PROXY", Fixed("false"), Never, "`true` if a proxy terminates TLS in front of the API."),
    public_setting("CONNECTIONS_PER_ADDRESS", Fixed("100"), Never, "Maximum open connections per client address (1 to 1000000)."),
    public_setting("HSTS_MAX_AGE", Fixed("63072000"), Never, "Seconds for which browsers must use HTTPS (`max-age` of the HSTS header, 0 to 315360000); sent in production only."),
    public_setting("HSTS_PRELOAD", Fixed("true"), Never, "`true` adds `preload` to the HSTS header."),
    public_setting("AUTH_LIMIT", Fixed("10/minute"), Never, "Maximum sign-ins and refreshes per account and per address, as a count per `second`, `minute`, `hour` or `day`."),
    public_setting("SCAN_LIMIT", Fixed("6/minute"), Never, "Maximum starts of compliance runs and trials of rules per person or key and per organization, in the form of `AUTH_LIMIT`."),
    public_setting("REQUEST_LIMIT", Fixed("3000/minute"), Never, "Maximum operations per person or key, over all transports, in the form of `AUTH_LIMIT`."),
    public_setting("ADDRESS_LIMIT", Fixed("6000/minute"), Never, "Maximum operations per address, with or without a token, in the form of `AUTH_LIMIT`. An IPv6 address is counted in its /64, and with 4 and 16 times the limit in its /56 and /48."),
    public_setting("SHED_QUEUE_DEPTH", Fixed("100000"), Never, "Number of waiting jobs from which the API refuses operations that start jobs (1 to 100000000)."),
    public_setting("LOGIN_IP_BLOCK_MINUTES", Fixed("15"), Never, "Minutes for which an address is blocked after too many failed sign-ins (1 to 1440)."),
    public_setting("ACCESS_TOKEN_EXPIRE_MINUTES", Fixed("30"), Never, "Lifetime of an access token in minutes (1 to 60)."),
    public_setting("REFRESH_TOKEN_EXPIRE_DAYS", Fixed("14"), Never, "Lifetime of a session in days (1 to 90); a refresh does not extend it."),
    public_setting("SESSION_IDLE_MINUTES", Unset("off"), Never, "Minutes without use after which a session ends (1 to 129600)."),
    public_setting("SESSION_MAX_PER_USER", Fixed("10"), Never, "Maximum sessions per person (1 to 1000); a further sign-in ends the oldest."),
    public_setting("SESSION_MAX_PER_ADMIN", Fixed("3"), Never, "Maximum sessions per person who may manage users (1 to 1000)."),
    public_setting("ARGON2_M_KIB", PerEnvironment { development: "19456", production: "65536" }, Never, "Memory per password hash in KiB (19456 to 4194304)."),
    public_setting("ARGON2_T", PerEnvironment { development: "2", production: "3" }, Never, "Passes per password hash (2 to 64)."),
    public_setting("ARGON2_P", Fixed("1"), Never, "Lanes per password hash (1 to 64)."),
    public_setting("ARGON2_MAX_PARALLEL", Unset("number of cores"), Never, "Maximum passwords hashed at the same time (1 to 1024); each needs `ARGON2_M_KIB` of memory."),
    public_setting("GRAPHQL_INTROSPECTION", PerEnvironment { development: "true", production: "false" }, Never, "`true` allows introspection of the schema."),
    public_setting("GRAPHQL_PLAYGROUND", PerEnvironment { development: "true", production: "false" }, Never, "`true` serves GraphiQL at `/playground`."),
    public_setting("GRAPHQL_ALLOWLIST", Fixed("off"), Never, "`off`, `log` or `enforce`: `log` logs documents that are not on the list, `enforce` rejects them."),
    public_setting("GRAPHQL_ALLOWLIST_FILE", Unset("none"), Allowlist, "Path of the list: a JSON file with one object that maps the SHA-256 of each document, in lower-case hex, to the document."),
    public_setting("WORKER_QUEUES", Unset("all"), Never, "Comma-separated queues from which jobs are claimed: `scan`, `probe`, `triage`, `import`, `notify`, `upkeep`."),
    public_setting("WORKER_CONCURRENCY_SCAN", Unset("twice the cores"), Never, "Maximum jobs of the queue `scan` that one process runs at the same time (1 to 10000)."),
    public_setting("WORKER_CONCURRENCY_PROBE", Unset("64"), Never, "The same for the queue `probe`."),
    public_setting("WORKER_CONCURRENCY_TRIAGE", Unset("4"), Never, "The same for the queue `triage`."),
    public_setting("WORKER_CONCURRENCY_IMPORT", Unset("number of cores"), Never, "The same for the queue `import`."),
    public_setting("WORKER_CONCURRENCY_NOTIFY", Unset("16"), Never, "The same for the queue `notify`."),
    public_setting("WORKER_CONCURRENCY_UPKEEP", Unset("32"), Never, "The same for the queue `upkeep`."),
    public_setting("JOB_HISTORY_DAYS", Fixed("30"), Never, "Retention of the job history, and of imports with their errors, in days (1 to 3650)."),
    public_setting("AUDIT_RETENTION_DAYS", Fixed("365"), Never, "Retention of the audit trail in days (90 to 3650). Whole months are removed."),
    public_setting("LOG_FORMAT", Unset("`json`; `text` on a terminal in development"), Never, "`json` or `text`; logs go to standard error, one line per event."),
    public_setting("LOG_LEVEL", Fixed("info"), Never, "A level (`off`, `error`, `warn`, `info`, `debug`, `trace`) or directives such as `warn,api=info`; production rejects `debug` and `trace`."),
    public_setting("LOG_LEVEL_FORCE", Fixed("false"), Never, "`true` allows `debug` and `trace` in production."),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Page that documents the settings.
    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docker/docs/configuration.md");

    #[test]
    fn the_page_has_the_table_of_settings() {
        let committed = std::fs::read_to_string(PAGE).unwrap();
        let start = committed.find("| variable |").expect("the page has a table of settings");
        let end =
            committed[start..].find("\n\n").map_or(committed.len(), |length| start + length + 1);
        let current = format!("{}{}{}", &committed[..start], markdown(), &committed[end..]);
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(PAGE, &current).unwrap();
            return;
        }
        assert!(
            committed == current,
            "the table in docker/docs/configuration.md differs from the settings: run this test with UPDATE_DOCS=1, \
             read the diff as an operator would, and commit it"
        );
    }

    #[test]
    fn names_are_unique_and_meanings_are_sentences() {
        for (index, setting) in SETTINGS.iter().enumerate() {
            assert!(SETTINGS[..index].iter().all(|other| other.name != setting.name));
            assert!(setting.description.ends_with('.'), "{}", setting.name);
        }
    }

    #[test]
    fn the_allowlist_is_the_one_setting_whose_file_is_not_its_value() {
        let without: Vec<_> =
            SETTINGS.iter().filter(|s| s.file_variable().is_none()).map(|s| s.name).collect();
        assert_eq!(without, ["GRAPHQL_ALLOWLIST", "GRAPHQL_ALLOWLIST_FILE"]);
    }

    #[test]
    fn slips_of_the_pen_are_noticed() {
        let check = |name: &'static str, meant: Option<&str>| {
            let found = probable_typos([name]).pop().map(|(_, meant)| meant);
            assert_eq!(found.as_deref(), meant, "{name}");
        };
        check("LISTEN_ADR", Some("LISTEN_ADDR"));
        check("LISTEN_ADDRS", Some("LISTEN_ADDR"));
        check("JWT_KEY", Some("JWT_KEYS"));
        check("JWT_KEY_FILE", Some("JWT_KEYS_FILE"));
        check("DATABSE_URL", Some("DATABASE_URL"));
        check("TRUSTED_PROXIE", Some("TRUSTED_PROXIES"));
        check("LOG_LEVLE", Some("LOG_LEVEL"));
        check("ARGON2T", Some("ARGON2_T"));
        check("ARGON2_X", Some("ARGON2_T"));
        check("listen_ADDR", None);
        check("HSTS_MAXAGES", Some("HSTS_MAX_AGE"));
        check("LISTEN_ADDR", None);
        check("JWT_KEYS_FILE", None);
        check("PATH", None);
        check("HOME", None);
        check("LISTEN_ADDRESS_OF_OTHERS", None);
    }
}
