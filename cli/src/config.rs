//! Configuration from environment variables, each as `FOO` or `FOO_FILE`, read completely and once at start.
//!
//! All errors are reported together, and the process exits with [`EXIT_CODE`]. An error names its variable and never
//! shows the value. [`Config`] has parsed types, so no other code parses a setting. The table in `setting` lists every
//! setting. Chosen: variables instead of a file, because containers, systemd and CI all set variables. Revisit when a
//! setting becomes a list of records.

use std::{
    fmt::Write,
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use domain::fleet::job::Queue;
use ipnet::IpNet;
use url::Url;
use workers::{QueueSettings, Retention};

mod assemble;
mod key_ring;
mod production;
mod reader;
mod secret;
mod setting;
#[cfg(test)]
mod tests;
mod value;

pub(crate) use key_ring::KeyRing;
use reader::Reader;
pub(crate) use reader::{Expected, SettingError};
pub(crate) use secret::Secret;
#[cfg(test)]
pub(crate) use setting::SETTINGS;
pub(crate) use setting::{Setting, markdown, probable_typos};
pub(crate) use value::{DatabaseUrl, Documents, LogFilter, Origin, Rate};

/// Exit code of a process whose configuration is invalid.
pub(crate) const EXIT_CODE: u8 = 2;

/// Subcommand of this process; decides which settings are required.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// `sentryops up`: API, workers and private services in one process.
    Up,
    /// `sentryops api`: the GraphQL server.
    Api,
    /// `sentryops worker`: the workers of one process.
    Worker,
    /// `sentryops migrate`: migrations and database roles.
    Migrate,
    /// `sentryops services`: runs a given command with a temporary Postgres and Redis.
    Services,
    /// `sentryops admin`: organizations, users, postures.
    Admin,
    /// `sentryops schema`: prints the SDL.
    Schema,
    /// `sentryops doctor`: checks the configuration, Postgres and Redis.
    Doctor,
}

/// Environment of the process; selects the defaults and the strictness of the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Environment {
    /// Development, on a developer's own machine.
    Development,
    /// Production: stricter defaults, unsafe settings rejected.
    Production,
}

/// Complete, validated settings of a process.
#[derive(Debug)]
pub(crate) struct Config {
    /// Environment that selected the defaults.
    pub environment: Environment,
    /// Address and port on which the API listens.
    pub listen: SocketAddr,
    /// Address and port that serve liveness, readiness and metrics.
    pub health: SocketAddr,
    /// Folder of the private Postgres and Redis, and of generated secrets.
    pub data_dir: PathBuf,
    /// Postgres URL of the application's login; `None` selects the private Postgres.
    pub database_url: Option<DatabaseUrl>,
    /// Postgres URL of the schema's owner, for migrations; `None` selects the private Postgres.
    pub database_owner_url: Option<DatabaseUrl>,
    /// Maximum connections to Postgres of this process.
    pub database_pool_size: usize,
    /// Redis URL; `None` selects the private Redis.
    pub redis_url: Option<Secret<Url>>,
    /// True if production may connect to a Postgres on another machine without TLS.
    pub database_plaintext: bool,
    /// True if production may connect to a Redis on another machine without TLS.
    pub redis_plaintext: bool,
    /// Keys that sign access tokens; `None` until [`Config::generate_missing_keys`] fills it.
    pub jwt_keys: Option<KeyRing>,
    /// Keys from which the keys of page cursors are derived; `None` until [`Config::generate_missing_keys`] fills it.
    pub encryption_keys: Option<KeyRing>,
    /// Settings for browsers and proxies.
    pub http: Http,
    /// Rate limits, and the block time after failed sign-ins.
    pub limits: Limits,
    /// Lifetimes and counts of sessions.
    pub sessions: Sessions,
    /// Cost of a password hash.
    pub argon2: Argon2,
    /// Introspection, playground and allowlist of GraphQL.
    pub graphql: GraphQl,
    /// Queues, concurrency and job history.
    pub workers: Workers,
    /// Format and filter of logs.
    pub log: LogConfig,
    /// Warnings about probably misspelt variables, logged after logging has started.
    pub warnings: Vec<String>,
}

/// Settings for browsers and proxies.
#[derive(Debug)]
pub(crate) struct Http {
    /// Origins whose pages may call the API.
    pub cors_origins: Vec<Origin>,
    /// Networks whose `X-Forwarded-For` header is trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// True if a proxy terminates TLS in front of the API.
    pub is_behind_tls_proxy: bool,
    /// Maximum open connections per client address.
    pub connections_per_address: NonZeroU32,
    /// The HSTS header; `None` in development.
    pub hsts: Option<Hsts>,
}

/// Values of the `Strict-Transport-Security` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hsts {
    /// Time for which browsers must use HTTPS, in whole seconds.
    pub max_age: Duration,
    /// True if the header carries `preload`.
    pub preload: bool,
}

/// Rate limits, the limit of waiting jobs, and the block time after failed sign-ins.
#[derive(Debug)]
pub(crate) struct Limits {
    /// Limit of sign-ins and token refreshes, per account and per client address.
    pub auth: Rate,
    /// Limit of started compliance runs, per user or API key, and per organization.
    pub compliance_runs: Rate,
    /// Limit of operations, per user or API key.
    pub requests: Rate,
    /// Limit of operations, per client address.
    pub addresses: Rate,
    /// Number of waiting jobs from which the API refuses operations that start jobs.
    pub shed_queue_depth: NonZeroU32,
    /// Time for which an address is blocked after too many failed sign-ins.
    pub login_ip_block: Duration,
}

/// Lifetimes and counts of sessions.
#[derive(Debug)]
pub(crate) struct Sessions {
    /// Lifetime of an access token.
    pub access_token_lifetime: Duration,
    /// Lifetime of a session; a refresh does not extend it.
    pub refresh_token_lifetime: Duration,
    /// Idle time after which a session ends; `None` disables the limit.
    pub idle: Option<Duration>,
    /// Maximum number of sessions of one user.
    pub max_per_user: NonZeroU32,
    /// Maximum number of sessions of one user with the permission to manage users.
    pub max_per_admin: NonZeroU32,
}

/// Cost of a password hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Argon2 {
    /// Memory per hash in KiB.
    pub memory_kib: u32,
    /// Passes over the memory per hash.
    pub passes: u32,
    /// Parallel lanes of one hash.
    pub lanes: u32,
    /// Maximum hashes computed at the same time.
    pub max_parallel: NonZeroUsize,
}

/// Queues, concurrency and retention of a worker.
#[derive(Debug)]
pub(crate) struct Workers {
    /// Queues to claim jobs from, each with its settings.
    pub queues: Vec<(Queue, QueueSettings)>,
    /// Retention of the job history and of the audit trail.
    pub retention: Retention,
}

/// Introspection, playground and allowlist of the GraphQL API.
#[derive(Debug)]
pub(crate) struct GraphQl {
    /// True if introspection is allowed.
    pub introspection: bool,
    /// True if GraphiQL is served at `/playground`.
    pub playground: bool,
    /// Allowed GraphQL documents, and the treatment of all other documents.
    pub allowlist: Allowlist,
}

/// Treatment of GraphQL documents that are not on the allowlist.
#[derive(Debug)]
pub(crate) enum Allowlist {
    /// No allowlist: every document is executed.
    Off,
    /// Documents that are not listed are executed and logged.
    Log(Documents),
    /// Documents that are not listed are rejected.
    Enforce(Documents),
}

/// Format and filter of logs.
#[derive(Debug, Clone)]
pub(crate) struct LogConfig {
    /// Format of each log line.
    pub format: LogFormat,
    /// Filter by level and target.
    pub filter: LogFilter,
}

/// Format of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// JSON, one object per line, for programs.
    Json,
    /// Plain text, for a person at a terminal.
    Text,
}

impl Config {
    /// Reads the configuration from the environment, or returns all errors.
    pub(crate) fn from_env(command: Command) -> Result<Self, Vec<SettingError>> {
        let names: Vec<_> =
            std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
        let typos = probable_typos(names.iter().map(String::as_str));
        let warn = |(variable, setting): &(&str, String)| {
            format!("{variable} is not a setting; did you mean {setting}?")
        };
        match Self::read(command, env) {
            Ok(config) => Ok(Self { warnings: typos.iter().map(warn).collect(), ..config }),
            Err(mut errors) => {
                // If DATABSE_URL is set, the message "DATABASE_URL is missing" would puzzle the operator without this
                // hint.
                for error in &mut errors {
                    for (variable, _) in
                        typos.iter().filter(|(_, setting)| *setting == error.variable)
                    {
                        error.problem =
                            format!("{} ({variable} is set, but is not a setting)", error.problem)
                                .into();
                    }
                }
                Err(errors)
            }
        }
    }

    /// Reads the configuration with `lookup`, which maps a variable name to its value, or returns all errors.
    pub(crate) fn read(
        command: Command,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Vec<SettingError>> {
        // An invalid ENVIRONMENT counts as development, so that it causes no further errors.
        let mut reader = Reader::new(command, Environment::Development, &lookup);
        let environment = reader.get("ENVIRONMENT", str::parse);
        let mut errors = reader.errors;
        let mut reader =
            Reader::new(command, environment.unwrap_or(Environment::Development), &lookup);
        let config = assemble::config(&mut reader, environment);
        errors.append(&mut reader.errors);
        config.ok().filter(|_| errors.is_empty()).ok_or(errors)
    }

    /// Loads the key rings that are not set from the data folder. Generates a missing ring there. Used by `up` only.
    pub(crate) fn generate_missing_keys(&mut self) -> anyhow::Result<()> {
        let secrets = self.data_dir.join("secrets");
        for (ring, name) in
            [(&mut self.jwt_keys, "jwt_keys"), (&mut self.encryption_keys, "encryption_keys")]
        {
            if ring.is_none() {
                *ring = Some(KeyRing::load_or_generate(&secrets.join(name))?);
            }
        }
        if let (Some(jwt), Some(encryption)) = (&self.jwt_keys, &self.encryption_keys) {
            let is_shared = jwt.shares_a_key_with(encryption);
            anyhow::ensure!(
                !is_shared,
                "JWT_KEYS and ENCRYPTION_KEYS have a key in common: each needs keys of its own"
            );
        }
        Ok(())
    }
}

impl LogFormat {
    /// Returns the default format: text on a terminal in development, JSON otherwise.
    const fn default_for(environment: Environment, is_terminal: bool) -> Self {
        match (environment, is_terminal) {
            (Environment::Development, true) => Self::Text,
            (Environment::Development, false) | (Environment::Production, _) => Self::Json,
        }
    }
}

impl FromStr for LogFormat {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        match text {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err("json or text".into()),
        }
    }
}

impl FromStr for Environment {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        match text {
            "development" => Ok(Self::Development),
            "production" => Ok(Self::Production),
            _ => Err("development or production".into()),
        }
    }
}

/// Returns the value of an environment variable. Invalid UTF-8 becomes U+FFFD, which the reader rejects.
pub(crate) fn env(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// Renders the configuration errors for the operator.
pub(crate) fn render(errors: &[SettingError]) -> String {
    let mut text = String::from("The configuration is invalid, so nothing was started:\n");
    for error in errors {
        let _ = writeln!(text, "  {error}"); // writing to a String cannot fail
    }
    text + "`sentryops doctor --settings` lists every setting. Values are never printed.\n"
}
