//! Assembles the [`Config`] from single settings, and checks rules that involve several settings.
//!
//! Each function reads all its settings before the first `?`, so that every error is recorded.

use std::{
    io::{IsTerminal, stderr},
    num::{NonZeroU32, NonZeroUsize},
    thread::available_parallelism,
};

use domain::fleet::job::Queue;
use workers::{QueueSettings, Retention};

use super::{
    Allowlist, Argon2, Config, Documents, Environment, Expected, GraphQl, Hsts, Http, KeyRing,
    Limits, LogConfig, LogFilter, LogFormat, Sessions, Workers, production,
    reader::{ErrorRecorded, Reader},
    value::{boolean, documents, duration, folder, list, network, redis_url, socket, within},
};

const MINUTE: u64 = 60;
const DAY: u64 = 24 * 60 * MINUTE;

/// Reads all settings and checks them against each other.
pub(super) fn config(
    reader: &mut Reader<'_>,
    environment: Result<Environment, ErrorRecorded>,
) -> Result<Config, ErrorRecorded> {
    let listen = reader.get("LISTEN_ADDR", socket);
    let health = reader.get("HEALTH_ADDR", socket);
    let data_dir = reader.get("DATA_DIR", folder);
    let database_url = reader.find("DATABASE_URL", str::parse);
    let database_owner_url = reader.find("DATABASE_OWNER_URL", str::parse);
    let database_pool_size = reader.get("DATABASE_POOL_SIZE", within(1..=1000));
    let redis_url = reader.find("REDIS_URL", redis_url);
    let database_plaintext = reader.get("DATABASE_PLAINTEXT", boolean);
    let redis_plaintext = reader.get("REDIS_PLAINTEXT", boolean);
    let jwt_keys = reader.find("JWT_KEYS", KeyRing::parse);
    let encryption_keys = reader.find("ENCRYPTION_KEYS", KeyRing::parse);
    let http = read_http(reader, environment);
    let limits = read_limits(reader);
    let sessions = read_sessions(reader);
    let argon2 = read_argon2(reader);
    let graphql = read_graphql(reader);
    let workers = read_workers(reader);
    let log = read_log(reader, environment);

    if let (Ok(listen), Ok(health)) = (listen, health)
        && listen == health
        && listen.port() != 0
    {
        reader.record_error(
            "HEALTH_ADDR",
            "expected an address or port that differs from LISTEN_ADDR",
        );
    }
    if let (Ok(Some(jwt)), Ok(Some(encryption))) = (&jwt_keys, &encryption_keys)
        && jwt.shares_a_key_with(encryption)
    {
        reader.record_error("ENCRYPTION_KEYS", "expected keys that JWT_KEYS does not contain");
    }
    if let (Ok(Environment::Production), Ok(listen), Ok(http)) = (environment, listen, &http)
        && !listen.ip().is_loopback()
        && (!http.is_behind_tls_proxy || http.trusted_proxies.is_empty())
    {
        let problem = "expected a loopback address in production, or BEHIND_TLS_PROXY=true and \
                   TRUSTED_PROXIES set: passwords must not travel over plain HTTP";
        reader.record_error("LISTEN_ADDR", problem);
    }

    let config = Config {
        environment: environment?,
        listen: listen?,
        health: health?,
        data_dir: data_dir?,
        database_url: database_url?,
        database_owner_url: database_owner_url?,
        database_pool_size: database_pool_size?,
        redis_url: redis_url?,
        database_plaintext: database_plaintext?,
        redis_plaintext: redis_plaintext?,
        jwt_keys: jwt_keys?,
        encryption_keys: encryption_keys?,
        http: http?,
        limits: limits?,
        sessions: sessions?,
        argon2: argon2?,
        graphql: graphql?,
        workers: workers?,
        log: log?,
        warnings: Vec::new(),
    };
    if config.environment == Environment::Production {
        for (name, problem) in production::unsafe_settings(&config) {
            reader.record_error(name, problem);
        }
    }
    Ok(config)
}

fn read_http(
    reader: &mut Reader<'_>,
    environment: Result<Environment, ErrorRecorded>,
) -> Result<Http, ErrorRecorded> {
    let cors_origins = reader.get("CORS_ORIGINS", list(str::parse));
    let trusted_proxies = reader.get("TRUSTED_PROXIES", list(network));
    let is_behind_tls_proxy = reader.get("BEHIND_TLS_PROXY", boolean);
    let connections_per_address = reader.get("CONNECTIONS_PER_ADDRESS", nonzero(1_000_000));
    let max_age = reader.get("HSTS_MAX_AGE", duration(1, 0..=63_072_000 * 5));
    let preload = reader.get("HSTS_PRELOAD", boolean);
    let hsts = Hsts { max_age: max_age?, preload: preload? };
    Ok(Http {
        cors_origins: cors_origins?,
        trusted_proxies: trusted_proxies?,
        is_behind_tls_proxy: is_behind_tls_proxy?,
        connections_per_address: connections_per_address?,
        hsts: (environment? == Environment::Production).then_some(hsts),
    })
}

fn read_limits(reader: &mut Reader<'_>) -> Result<Limits, ErrorRecorded> {
    let auth = reader.get("AUTH_LIMIT", str::parse);
    let compliance_runs = reader.get("SCAN_LIMIT", str::parse);
    let login_ip_block = reader.get("LOGIN_IP_BLOCK_MINUTES", duration(MINUTE, 1..=1440));
    let requests = reader.get("REQUEST_LIMIT", str::parse);
    let addresses = reader.get("ADDRESS_LIMIT", str::parse);
    let shed_queue_depth = reader.get("SHED_QUEUE_DEPTH", nonzero(100_000_000));
    Ok(Limits {
        auth: auth?,
        compliance_runs: compliance_runs?,
        requests: requests?,
        addresses: addresses?,
        shed_queue_depth: shed_queue_depth?,
        login_ip_block: login_ip_block?,
    })
}

fn read_workers(reader: &mut Reader<'_>) -> Result<Workers, ErrorRecorded> {
    let selected = reader.find("WORKER_QUEUES", list(queue));
    let configured: Vec<_> = CONCURRENCY
        .iter()
        .map(|(queue, setting)| (*queue, reader.find(setting, nonzero(10_000))))
        .collect();
    let history_days = reader.get("JOB_HISTORY_DAYS", within(1..=3650));
    let audit_days = reader.get("AUDIT_RETENTION_DAYS", within(90..=3650));
    let selected = selected?.unwrap_or_default();
    let mut queues = Vec::new();
    for (queue, configured) in configured {
        let defaults = QueueSettings::of(queue);
        let concurrency = configured?
            .map_or(defaults.concurrency, |configured: NonZeroU32| configured.get() as usize);
        if selected.is_empty() || selected.contains(&queue) {
            queues.push((queue, QueueSettings { concurrency, ..defaults }));
        }
    }
    let retention = Retention { history_days: history_days?, audit_days: audit_days? };
    Ok(Workers { queues, retention })
}

/// Queues, each with the setting of its concurrency.
const CONCURRENCY: &[(Queue, &str)] = &[
    (Queue::Scan, "WORKER_CONCURRENCY_SCAN"),
    (Queue::Probe, "WORKER_CONCURRENCY_PROBE"),
    (Queue::Triage, "WORKER_CONCURRENCY_TRIAGE"),
    (Queue::Import, "WORKER_CONCURRENCY_IMPORT"),
    (Queue::Notify, "WORKER_CONCURRENCY_NOTIFY"),
    (Queue::Upkeep, "WORKER_CONCURRENCY_UPKEEP"),
];

fn queue(text: &str) -> Result<Queue, Expected> {
    Queue::ALL.iter().copied().find(|queue| queue.as_str().eq_ignore_ascii_case(text)).ok_or_else(
        || "a comma-separated list of scan, probe, triage, import, notify, upkeep".into(),
    )
}

fn read_sessions(reader: &mut Reader<'_>) -> Result<Sessions, ErrorRecorded> {
    let access = reader.get("ACCESS_TOKEN_EXPIRE_MINUTES", duration(MINUTE, 1..=60));
    let refresh = reader.get("REFRESH_TOKEN_EXPIRE_DAYS", duration(DAY, 1..=90));
    let idle = reader.find("SESSION_IDLE_MINUTES", duration(MINUTE, 1..=129_600));
    let max_per_user = reader.get("SESSION_MAX_PER_USER", nonzero(1000));
    let max_per_admin = reader.get("SESSION_MAX_PER_ADMIN", nonzero(1000));
    Ok(Sessions {
        access_token_lifetime: access?,
        refresh_token_lifetime: refresh?,
        idle: idle?,
        max_per_user: max_per_user?,
        max_per_admin: max_per_admin?,
    })
}

fn read_argon2(reader: &mut Reader<'_>) -> Result<Argon2, ErrorRecorded> {
    let memory_kib = reader.get("ARGON2_M_KIB", within(19_456..=4_194_304));
    let passes = reader.get("ARGON2_T", within(2..=64));
    let lanes = reader.get("ARGON2_P", within(1..=64));
    let cores = available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let max_parallel = reader.find("ARGON2_MAX_PARALLEL", nonzero(1024));
    Ok(Argon2 {
        memory_kib: memory_kib?,
        passes: passes?,
        lanes: lanes?,
        max_parallel: max_parallel?.and_then(|n| n.try_into().ok()).unwrap_or(cores),
    })
}

fn read_graphql(reader: &mut Reader<'_>) -> Result<GraphQl, ErrorRecorded> {
    let introspection = reader.get("GRAPHQL_INTROSPECTION", boolean);
    let playground = reader.get("GRAPHQL_PLAYGROUND", boolean);
    let allowlist = read_allowlist(reader);
    Ok(GraphQl { introspection: introspection?, playground: playground?, allowlist: allowlist? })
}

fn read_allowlist(reader: &mut Reader<'_>) -> Result<Allowlist, ErrorRecorded> {
    type WithList = fn(Documents) -> Allowlist;
    let with_list = reader.get("GRAPHQL_ALLOWLIST", |text| match text {
        "off" => Ok(None),
        "log" => Ok(Some(Allowlist::Log as WithList)),
        "enforce" => Ok(Some(Allowlist::Enforce as WithList)),
        _ => Err("off, log or enforce".into()),
    })?;
    let Some(with_list) = with_list else { return Ok(Allowlist::Off) };
    let documents = reader.find("GRAPHQL_ALLOWLIST_FILE", documents)?;
    documents.map(with_list).ok_or_else(|| {
        reader.record_error(
            "GRAPHQL_ALLOWLIST_FILE",
            "missing (required because GRAPHQL_ALLOWLIST is not off)",
        )
    })
}

fn read_log(
    reader: &mut Reader<'_>,
    environment: Result<Environment, ErrorRecorded>,
) -> Result<LogConfig, ErrorRecorded> {
    let format = reader.find("LOG_FORMAT", str::parse);
    let filter: Result<LogFilter, _> = reader.get("LOG_LEVEL", str::parse);
    let is_forced = reader.get("LOG_LEVEL_FORCE", boolean);
    if let (Ok(Environment::Production), Ok(filter), Ok(false)) = (environment, &filter, is_forced)
        && !filter.is_at_most_info()
    {
        let problem = "expected no level below info in production, unless LOG_LEVEL_FORCE=true";
        reader.record_error("LOG_LEVEL", problem);
    }
    let default_format = LogFormat::default_for(environment?, stderr().is_terminal());
    Ok(LogConfig { format: format?.unwrap_or(default_format), filter: filter? })
}

fn nonzero(max: u32) -> impl Fn(&str) -> Result<NonZeroU32, Expected> {
    let number = within(1..=max);
    move |text| number(text).map(|number| NonZeroU32::new(number).expect("the lower bound is 1"))
}
