//! Configuration from the environment: each name as `FOO` or `FOO_FILE`, read once, whole, at start.
//!
//! All faults are reported together, each names its variable and none shows a value; the process then exits with
//! [`EXIT_CODE`]. What comes out is typed, so nobody parses again later. We chose variables over a file because containers,
//! systemd and CI all set them; choose again when a setting becomes a list of records. What there is stands in the table of `setting`.

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
use workers::QueueSettings;

mod assemble;
mod key_ring;
mod reader;
mod secret;
mod setting;
#[cfg(test)]
mod tests;
mod value;

pub(crate) use key_ring::KeyRing;
use reader::Reader;
pub(crate) use reader::{Expected, Fault};
pub(crate) use secret::Secret;
#[cfg(test)]
pub(crate) use setting::SETTINGS;
pub(crate) use setting::{Setting, markdown, near_misses};
pub(crate) use value::{DatabaseUrl, Documents, LogFilter, Origin, Rate};

/// What a process with a wrong configuration exits with.
pub(crate) const EXIT_CODE: u8 = 2;

/// What is being run; it decides which settings are required.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// `sentryops up`: everything in one process.
    Up,
    /// `sentryops api`: the GraphQL server.
    Api,
    /// `sentryops worker`: the fleet.
    Worker,
    /// `sentryops migrate`.
    Migrate,
    /// `sentryops services`.
    Services,
    /// `sentryops admin`.
    Admin,
    /// `sentryops schema`.
    Schema,
    /// `sentryops doctor`.
    Doctor,
}

/// How strict we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Environment {
    /// On somebody's own machine.
    Development,
    /// Where others depend on it.
    Production,
}

/// All settings of a process.
#[derive(Debug)]
pub(crate) struct Config {
    /// How strict we are.
    pub environment: Environment,
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Where liveness, readiness and metrics are served.
    pub health: SocketAddr,
    /// The folder of the private services and of generated secrets.
    pub data_dir: PathBuf,
    /// Postgres, as the login that serves; absent: the private one.
    pub database_url: Option<DatabaseUrl>,
    /// Postgres, as the owner that migrates; absent: the private one.
    pub database_owner_url: Option<DatabaseUrl>,
    /// Connections to Postgres at most.
    pub database_pool_size: usize,
    /// Redis; absent: the private one.
    pub redis_url: Option<Secret<Url>>,
    /// What signs access tokens; absent: to be generated, see [`Config::generate_missing_keys`].
    pub jwt_keys: Option<KeyRing>,
    /// What encrypts stored secrets; absent as above.
    pub encryption_keys: Option<KeyRing>,
    /// How we meet browsers and proxies.
    pub http: Http,
    /// How much anyone may do.
    pub limits: Limits,
    /// How long people stay signed in.
    pub sessions: Sessions,
    /// What a password hash costs.
    pub argon2: Argon2,
    /// What GraphQL clients may ask.
    pub graphql: GraphQl,
    /// Which jobs are taken, how many at a time.
    pub workers: Workers,
    /// What is logged and how.
    pub log: Log,
    /// Likely slips of the pen, to be logged once logging works.
    pub warnings: Vec<String>,
}

/// How we meet browsers and proxies.
#[derive(Debug)]
pub(crate) struct Http {
    /// Whose pages may call the API.
    pub cors_origins: Vec<Origin>,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// A proxy ends TLS in front of us.
    pub is_behind_tls_proxy: bool,
    /// Open connections that one address may hold.
    pub connections_per_address: NonZeroU32,
    /// The HSTS header; absent in development.
    pub hsts: Option<Hsts>,
}

/// For how long browsers must use HTTPS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hsts {
    /// Whole seconds.
    pub max_age: Duration,
    /// Whether browsers may ship it.
    pub preload: bool,
}

/// How much anyone may do.
#[derive(Debug)]
pub(crate) struct Limits {
    /// Sign-ins and refreshes, per account and per address.
    pub auth: Rate,
    /// Starts of scans, per person and per organization.
    pub scan: Rate,
    /// How long an address with too many failed sign-ins is refused.
    pub login_ip_block: Duration,
}

/// How long people stay signed in.
#[derive(Debug)]
pub(crate) struct Sessions {
    /// Life of an access token.
    pub access_token_life: Duration,
    /// Life of a session, whatever is refreshed.
    pub refresh_token_life: Duration,
    /// Ends sessions that were not used for so long; absent: off.
    pub idle: Option<Duration>,
    /// Sessions a person may have.
    pub max_per_user: NonZeroU32,
    /// Sessions an administrator may have.
    pub max_per_admin: NonZeroU32,
}

/// What a password hash costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Argon2 {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
    /// Hashes at the same time.
    pub max_parallel: NonZeroUsize,
}

/// Which jobs are taken, how many at a time.
#[derive(Debug)]
pub(crate) struct Workers {
    /// The queues to take from.
    pub queues: Vec<(Queue, QueueSettings)>,
    /// Days for which it is kept what became of jobs.
    pub history_days: u16,
}

/// What GraphQL clients may ask.
#[derive(Debug)]
pub(crate) struct GraphQl {
    /// Whether the schema answers questions about itself.
    pub introspection: bool,
    /// Whether GraphiQL is served.
    pub playground: bool,
    /// Which documents are known.
    pub allowlist: Allowlist,
}

/// What happens to documents that are not on the list.
#[derive(Debug)]
pub(crate) enum Allowlist {
    /// There is no list.
    Off,
    /// They are logged.
    Log(Documents),
    /// They are refused.
    Enforce(Documents),
}

/// What is logged and how.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    /// The form of a line.
    pub format: LogFormat,
    /// What gets through.
    pub filter: LogFilter,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// One JSON object, for programs.
    Json,
    /// Plain text, for people.
    Text,
}

impl Config {
    /// The configuration of this process, or everything that is wrong with it.
    pub(crate) fn from_env(command: Command) -> Result<Self, Vec<Fault>> {
        let names: Vec<_> =
            std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
        let slips = near_misses(names.iter().map(String::as_str));
        let warn =
            |(found, meant): &(&str, String)| format!("{found} is not read: is {meant} meant?");
        match Self::read(command, env) {
            Ok(config) => Ok(Self { warnings: slips.iter().map(warn).collect(), ..config }),
            Err(mut faults) => {
                // Whoever wrote DATABSE_URL should not have to guess why DATABASE_URL is missing.
                for fault in &mut faults {
                    for (found, _) in slips.iter().filter(|(_, meant)| *meant == fault.variable) {
                        fault.complaint = format!("{} ({found} is set)", fault.complaint).into();
                    }
                }
                Err(faults)
            }
        }
    }

    /// The configuration that `lookup` gives by the names of variables, or everything that is wrong with it.
    pub(crate) fn read(
        command: Command,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Vec<Fault>> {
        // Until we know better we assume development, so that one slip here does not cause faults that are none.
        let mut reader = Reader::new(command, Environment::Development, &lookup);
        let environment = reader.get("ENVIRONMENT", str::parse);
        let mut faults = reader.faults;
        let mut reader =
            Reader::new(command, environment.unwrap_or(Environment::Development), &lookup);
        let config = assemble::config(&mut reader, environment);
        faults.append(&mut reader.faults);
        config.ok().filter(|_| faults.is_empty()).ok_or(faults)
    }

    /// Takes the key rings that were not given from the data folder, where they are made the first time. For `up`.
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
            anyhow::ensure!(!is_shared, "JWT_KEYS and ENCRYPTION_KEYS have a key in common");
        }
        Ok(())
    }
}

impl LogFormat {
    /// Text where a developer looks on, JSON elsewhere.
    const fn usual(environment: Environment, is_terminal: bool) -> Self {
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

/// A variable of this process. What is not UTF-8 is made visible as such, so that the reader refuses it.
pub(crate) fn env(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// The faults for a person to read.
pub(crate) fn render(faults: &[Fault]) -> String {
    let mut text = String::from("Nothing was started, because of the configuration:\n");
    for fault in faults {
        let _ = writeln!(text, "  {fault}"); // writing to a String cannot fail
    }
    text + "Every setting stands in README.md. Values are never printed.\n"
}
