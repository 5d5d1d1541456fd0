//! Every setting there is, in one table.
//!
//! The reader takes its defaults from here, `doctor` prints it and a test holds the table in `README.md` equal to it, so
//! none of the three can say something else. We gave up a derive macro: it would hide forty lines that people look up.

use std::fmt::Write;

use strsim::levenshtein;

use super::{Command, Environment};

/// One environment variable that we read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    /// The variable, e.g. `LISTEN_ADDR`.
    pub name: &'static str,
    /// What holds when it is not set.
    pub default: Standard,
    /// Who refuses to start without it.
    pub required: Required,
    /// Whether the value must be kept from others on the machine.
    pub is_secret: bool,
    /// One sentence.
    pub meaning: &'static str,
}

/// What holds when a setting is not given.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Standard {
    /// This text, as if it had been given.
    Fixed(&'static str),
    /// One text in development, another in production.
    By {
        /// In development.
        development: &'static str,
        /// In production.
        production: &'static str,
    },
    /// No value; the words say what happens then.
    Absent(&'static str),
}

/// Who refuses to start without a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Required {
    /// Nobody.
    Never,
    /// `sentryops api` and `sentryops worker`.
    Serving,
    /// `sentryops api`, and `sentryops up` in production.
    ApiAndProduction,
    /// Whoever serves with `GRAPHQL_ALLOWLIST` on.
    Allowlist,
}

impl Setting {
    /// The setting of that name.
    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// The variable that names a file with the value, e.g. `JWT_KEYS_FILE`. Settings that are about a file have none.
    pub(crate) fn file_variable(&self) -> Option<String> {
        let variable = format!("{}_FILE", self.name);
        (!self.name.ends_with("_FILE") && Self::find(&variable).is_none()).then_some(variable)
    }

    /// The default as text, where there is one.
    pub(crate) const fn default_in(&self, environment: Environment) -> Option<&'static str> {
        match (self.default, environment) {
            (Standard::Fixed(text), _)
            | (Standard::By { development: text, .. }, Environment::Development)
            | (Standard::By { production: text, .. }, Environment::Production) => Some(text),
            (Standard::Absent(_), _) => None,
        }
    }
}

impl Required {
    /// Whether `command` cannot do without. The allowlist's file is checked where the list is read.
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

    /// As the table says it.
    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::Never => "",
            Self::Serving => "`api`, `worker`",
            Self::ApiAndProduction => "`api`, in production `up`",
            Self::Allowlist => "an allowlist",
        }
    }
}

/// The table of all settings in Markdown, as `README.md` has it.
pub(crate) fn markdown() -> String {
    let mut table =
        String::from("| variable | default | required by | meaning |\n|---|---|---|---|\n");
    for setting in SETTINGS {
        let code = |text: &str| if text.is_empty() { "none".into() } else { format!("`{text}`") };
        let default = match setting.default {
            Standard::Fixed(text) => code(text),
            Standard::By { development, production } => {
                format!("{}; production {}", code(development), code(production))
            }
            Standard::Absent(then) => then.to_owned(),
        };
        let (name, required) = (setting.name, setting.required.describe());
        let meaning = setting.meaning;
        // Writing to a String cannot fail.
        let _ = writeln!(table, "| `{name}` | {default} | {required} | {meaning} |");
    }
    table
}

/// Variables that look like a slip of the pen for one of ours: what was found, and what was probably meant.
pub(crate) fn near_misses<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<(&'a str, String)> {
    let ours: Vec<String> = SETTINGS
        .iter()
        .flat_map(|setting| [Some(setting.name.to_owned()), setting.file_variable()])
        .flatten()
        .collect();
    names
        .into_iter()
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
        .filter(|name| !ours.iter().any(|known| known == name))
        .filter_map(|name| {
            let close = |known: &&String| levenshtein(name, known) <= 2;
            let meant = ours.iter().filter(close).min_by_key(|known| levenshtein(name, known))?;
            Some((name, meant.clone()))
        })
        .collect()
}

const fn open(
    name: &'static str,
    default: Standard,
    required: Required,
    meaning: &'static str,
) -> Setting {
    Setting { name, default, required, is_secret: false, meaning }
}

const fn secret(
    name: &'static str,
    then: &'static str,
    required: Required,
    meaning: &'static str,
) -> Setting {
    Setting { name, default: Standard::Absent(then), required, is_secret: true, meaning }
}

use Required::{Allowlist, ApiAndProduction, Never, Serving};
use Standard::{Absent, By, Fixed};

/// Every setting, in the order in which people look for them.
#[rustfmt::skip]
pub(crate) const SETTINGS: &[Setting] = &[
    open("ENVIRONMENT", Fixed("development"), Never, "`development` or `production`; production has stricter defaults and refuses what is unsafe."),
    open("LISTEN_ADDR", Fixed("127.0.0.1:8080"), Never, "IP address and port of the API; in production anything but loopback needs `BEHIND_TLS_PROXY` and `TRUSTED_PROXIES`."),
    open("HEALTH_ADDR", Fixed("127.0.0.1:8092"), Never, "IP address and port of `/livez`, `/readyz` and `/metrics`."),
    open("DATA_DIR", Fixed(".sentryops"), Never, "Folder of the private Postgres and Redis and of generated secrets."),
    secret("DATABASE_URL", "private Postgres", Serving, "PostgreSQL URL of the login that API and workers use; neither owner nor superuser."),
    secret("DATABASE_OWNER_URL", "private Postgres", Never, "PostgreSQL URL of the owner, for `migrate` and `up`; API and workers do not need it."),
    open("DATABASE_POOL_SIZE", Fixed("16"), Never, "Connections to Postgres that one process holds at most (1 to 1000)."),
    secret("REDIS_URL", "private Redis", Serving, "URL of Redis or Valkey: `redis://`, `rediss://` (TLS) or `redis+unix://`."),
    secret("JWT_KEYS", "generated by `up`", ApiAndProduction, "Key ring that signs access tokens, the same on every replica."),
    secret("ENCRYPTION_KEYS", "generated by `up`", ApiAndProduction, "Key ring from which the keys of page cursors are derived, the same on every replica."),
    open("CORS_ORIGINS", By { development: "http://localhost:3000", production: "" }, Never, "Comma list of origins whose pages may call the API, each exactly `scheme://host[:port]`."),
    open("TRUSTED_PROXIES", Fixed(""), Never, "Comma list of addresses or networks (CIDR) whose `X-Forwarded-For` is believed."),
    open("BEHIND_TLS_PROXY", Fixed("false"), Never, "States that a proxy ends TLS in front of us."),
    open("CONNECTIONS_PER_ADDRESS", Fixed("100"), Never, "Open connections that one client address may hold."),
    open("HSTS_MAX_AGE", Fixed("63072000"), Never, "Seconds for which browsers must use HTTPS; sent in production only."),
    open("HSTS_PRELOAD", Fixed("true"), Never, "Adds `preload` to that header."),
    open("AUTH_LIMIT", Fixed("10/minute"), Never, "Sign-ins and refreshes per account and per address: a count per `second`, `minute`, `hour` or `day`."),
    open("SCAN_LIMIT", Fixed("6/minute"), Never, "Starts of compliance runs per person or key and per organization, as above."),
    open("LOGIN_IP_BLOCK_MINUTES", Fixed("15"), Never, "How long an address with too many failed sign-ins is refused (1 to 1440)."),
    open("ACCESS_TOKEN_EXPIRE_MINUTES", Fixed("30"), Never, "Life of an access token (1 to 60)."),
    open("REFRESH_TOKEN_EXPIRE_DAYS", Fixed("14"), Never, "Life of a session; refreshing does not prolong it (1 to 90)."),
    open("SESSION_IDLE_MINUTES", Absent("off"), Never, "Ends sessions that were not used for so long (1 to 129600)."),
    open("SESSION_MAX_PER_USER", Fixed("10"), Never, "Sessions that one person may have; the oldest gives way."),
    open("SESSION_MAX_PER_ADMIN", Fixed("3"), Never, "The same for administrators."),
    open("ARGON2_M_KIB", By { development: "19456", production: "65536" }, Never, "Memory per password hash in KiB (at least 19456)."),
    open("ARGON2_T", By { development: "2", production: "3" }, Never, "Passes per password hash (2 to 64)."),
    open("ARGON2_P", Fixed("1"), Never, "Lanes per password hash (1 to 64)."),
    open("ARGON2_MAX_PARALLEL", Absent("number of cores"), Never, "Passwords hashed at the same time; each takes `ARGON2_M_KIB`."),
    open("GRAPHQL_INTROSPECTION", By { development: "true", production: "false" }, Never, "Answers questions about the schema."),
    open("GRAPHQL_PLAYGROUND", By { development: "true", production: "false" }, Never, "Serves GraphiQL at `/playground`."),
    open("GRAPHQL_ALLOWLIST", Fixed("off"), Never, "`log` reports, `enforce` refuses documents that are not on the list."),
    open("GRAPHQL_ALLOWLIST_FILE", Absent("none"), Allowlist, "The list: a JSON file with one object, SHA-256 in hex → document."),
    open("WORKER_QUEUES", Absent("all"), Never, "Comma list of the queues from which jobs are taken: `scan`, `probe`, `triage`, `import`, `notify`, `upkeep`."),
    open("WORKER_CONCURRENCY_SCAN", Absent("twice the cores"), Never, "Jobs of the queue `scan` that one process runs at a time (1 to 10000)."),
    open("WORKER_CONCURRENCY_PROBE", Absent("64"), Never, "The same for `probe`."),
    open("WORKER_CONCURRENCY_TRIAGE", Absent("4"), Never, "The same for `triage`."),
    open("WORKER_CONCURRENCY_IMPORT", Absent("number of cores"), Never, "The same for `import`."),
    open("WORKER_CONCURRENCY_NOTIFY", Absent("16"), Never, "The same for `notify`."),
    open("WORKER_CONCURRENCY_UPKEEP", Absent("32"), Never, "The same for `upkeep`."),
    open("JOB_HISTORY_DAYS", Fixed("30"), Never, "Days for which it is kept what became of jobs, and imports with their errors (1 to 3650)."),
    open("LOG_FORMAT", Absent("`json`; `text` on a terminal in development"), Never, "`json` or `text`; logs go to standard error, one line each."),
    open("LOG_LEVEL", Fixed("info"), Never, "A level, or directives such as `warn,api=info`; production refuses `debug` and `trace`."),
    open("LOG_LEVEL_FORCE", Fixed("false"), Never, "Allows them all the same."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_says_what_the_table_says() {
        let readme = include_str!("../../../README.md");
        let table = markdown();
        assert!(readme.contains(&table), "put this table into README.md:\n{table}");
    }

    #[test]
    fn names_are_unique_and_meanings_are_sentences() {
        for (index, setting) in SETTINGS.iter().enumerate() {
            assert!(SETTINGS[..index].iter().all(|other| other.name != setting.name));
            assert!(setting.meaning.ends_with('.'), "{}", setting.name);
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
            let found = near_misses([name]).pop().map(|(_, meant)| meant);
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
