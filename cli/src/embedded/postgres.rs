//! The Postgres server, on a Unix socket, with password authentication only. Its settings are written at each start to
//! `<data>/postgres.conf`, which Postgres may read but not write; `ALTER SYSTEM` overrides them. Its log contains no
//! statements and no details, because those quote rows and passwords. Logins are reset at each start, so a password or
//! a right that was changed by hand does not last. The migrations create the group roles.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};
use tracing::warn;

use super::Durability;
use super::account::{read, write_own};
use super::child::{Child, Launcher};
use super::cluster;
use super::home::Home;
use super::log::Log;
use super::orphan::OrphanSearch;
use super::program;
use super::runtime;
use super::secret::Secrets;

const READY_TIMEOUT: Duration = Duration::from_mins(1);
/// Limit after a crash: Postgres replays its log first, and reports that to each connection.
const RECOVERY_TIMEOUT: Duration = Duration::from_mins(10);
const STOP_TIMEOUT: Duration = Duration::from_secs(25);
const IMMEDIATE_STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// URLs of the private database. All three are secrets.
#[derive(Clone)]
pub(crate) struct DatabaseUrls {
    /// URL of the superuser, which creates the roles.
    pub(crate) admin: String,
    /// URL of `sentryops_owner`, which owns the database and migrates it.
    pub(crate) owner: String,
    /// URL of `sentryops`, the login of the application: NOINHERIT, without rights of its own.
    pub(crate) app: String,
}

impl DatabaseUrls {
    pub(super) fn new(runtime: &Path, secrets: &Secrets) -> Self {
        Self {
            admin: url("postgres", &secrets.admin, runtime),
            owner: url("sentryops_owner", &secrets.owner, runtime),
            app: url("sentryops", &secrets.app, runtime),
        }
    }
}

fn url(user: &str, password: &str, runtime: &Path) -> String {
    // Slashes are the only characters of a runtime folder that need escaping.
    let host = runtime.display().to_string().replace('/', "%2F");
    format!("postgresql://{user}:{password}@{host}/sentryops")
}

/// Starts the server. [`ready`] waits until it accepts connections.
pub(super) async fn spawn(
    home: &Home,
    launcher: &Launcher,
    program: &program::Postgres,
    durability: Durability,
) -> Result<Child> {
    let settings = home.data.join("postgres.conf");
    write_own(&settings, configuration(&home.runtime, durability).as_bytes(), 0o644)?;
    let cluster = cluster::path(&home.data);
    let log = Log::begin(&home.data.join("log"), "postgres")?;
    let mut command = launcher.command(&program.server, "INT");
    let mut config_file = std::ffi::OsString::from("config_file=");
    config_file.push(&settings);
    command.arg("-D").arg(&cluster).arg("-c").arg(config_file).current_dir(&cluster);
    Child::spawn("postgres", Signal::INT, command, None, log).await
}

fn configuration(runtime: &Path, durability: Durability) -> String {
    let durable = match durability {
        Durability::Durable => "fsync = on\nsynchronous_commit = on\nfull_page_writes = on",
        Durability::Scratch => "fsync = off\nsynchronous_commit = off\nfull_page_writes = off",
    };
    format!(
        "# Written by sentryops at each start. ALTER SYSTEM overrides it.
listen_addresses = ''
port = 5432
unix_socket_directories = '{}'
unix_socket_permissions = 0700
cluster_name = 'sentryops'
password_encryption = 'scram-sha-256'
max_connections = 100
shared_buffers = '128MB'
jit = off
wal_compression = on
{durable}
timezone = 'UTC'
log_timezone = 'UTC'
default_text_search_config = 'pg_catalog.english'
log_destination = 'stderr'
logging_collector = off
log_line_prefix = '%m [%p] '
log_min_messages = 'warning'
log_min_error_statement = 'panic'
log_error_verbosity = 'terse'
",
        runtime.display()
    )
}

/// Waits until the server accepts connections, then creates the logins and the database.
pub(super) async fn ready(home: &Home, secrets: &Secrets, child: &mut Child) -> Result<()> {
    let admin = loop_until_connected(home, secrets, child).await?;
    make_logins(&admin, secrets).await.context("cannot create the logins of the private database")
}

async fn loop_until_connected(home: &Home, secrets: &Secrets, child: &mut Child) -> Result<Client> {
    let began = Instant::now();
    let mut pause = Duration::from_millis(5);
    let mut is_recovering = false;
    loop {
        match timeout(Duration::from_secs(10), connect(&home.runtime, &secrets.admin)).await {
            Ok(Ok(client)) => return Ok(client),
            Ok(Err(error)) => match error.code() {
                Some(code) if *code == SqlState::CANNOT_CONNECT_NOW => is_recovering = true,
                Some(code) if *code == SqlState::INVALID_PASSWORD => bail!(
                    "the database rejects the password in {}: the file belongs to another cluster, so restore the right one",
                    home.data.join("passwords").display()
                ),
                _ => {}
            },
            Err(_) => {}
        }
        let patience = if is_recovering { RECOVERY_TIMEOUT } else { READY_TIMEOUT };
        if began.elapsed() > patience {
            let seconds = patience.as_secs();
            bail!("postgres accepts no connection after {seconds} s; {}", child.log.tail());
        }
        tokio::select! {
            how = child.ended() => bail!("postgres did not start ({how}); {}", child.log.tail()),
            () = sleep(pause) => pause = (pause * 2).min(Duration::from_millis(250)),
        }
    }
}

/// Connects to the private Postgres as its superuser.
pub(super) async fn connect(
    runtime: &Path,
    password: &str,
) -> Result<Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.host_path(runtime).user("postgres").password(password).dbname("postgres");
    let (client, connection) = config.connect(NoTls).await?;
    // The task ends when the client is dropped.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            warn!("the connection to the private database was lost: {error}");
        }
    });
    Ok(client)
}

async fn make_logins(admin: &Client, secrets: &Secrets) -> Result<(), tokio_postgres::Error> {
    let Secrets { owner, app, .. } = secrets;
    let nothing_else = "NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS";
    // Passwords need no quoting: see `secret`.
    admin
        .batch_execute(&format!(
            "DO $$ BEGIN CREATE ROLE sentryops_owner;
             EXCEPTION WHEN duplicate_object THEN NULL; END $$;
             DO $$ BEGIN CREATE ROLE sentryops;
             EXCEPTION WHEN duplicate_object THEN NULL; END $$;
             ALTER ROLE sentryops_owner LOGIN INHERIT {nothing_else} PASSWORD '{owner}';
             ALTER ROLE sentryops LOGIN NOINHERIT {nothing_else} PASSWORD '{app}'"
        ))
        .await?;
    let known =
        admin.query_opt("SELECT 1 FROM pg_database WHERE datname = 'sentryops'", &[]).await?;
    if known.is_none() {
        admin.batch_execute("CREATE DATABASE sentryops OWNER sentryops_owner").await?;
    }
    Ok(())
}

/// Stops the server: first by a fast shutdown, which ends its connections; then by an immediate one, after which the
/// next start has to recover.
pub(super) async fn stop(mut child: Child, home: &Home, durability: Durability) -> Result<()> {
    let in_order = (Signal::INT, STOP_TIMEOUT);
    let at_once = (Signal::QUIT, IMMEDIATE_STOP_TIMEOUT);
    let stopped = match durability {
        Durability::Durable => child.end(&[in_order, at_once]).await,
        Durability::Scratch => child.end(&[at_once]).await,
    };
    // The processes of a killed server end automatically, but not within the time that `Services::stop` promises.
    stopped.and(end_orphans(home).await)
}

/// Stops servers that an earlier run left, or their processes, and neutralises the pid file.
pub(super) async fn end_orphans(home: &Home) -> Result<()> {
    let (cluster, aside) = (cluster::path(&home.data), cluster::aside(&home.data));
    let socket = home.runtime.join(runtime::POSTGRES_SOCKET);
    let uid = home.account.uid;
    let pid_file = cluster::pid_file(&home.data);
    let noted = read(&pid_file)?.unwrap_or_default();
    let leader = noted.lines().next().and_then(|pid| Pid::from_raw(pid.parse().ok()?));
    let server = OrphanSearch { folder: &cluster, socket: &socket, uid };
    // Processes without their server cannot shut down in order, so they get QUIT.
    server.end(leader, Signal::INT, Signal::QUIT).await?;
    let initdb = OrphanSearch { folder: &aside, socket: &socket, uid };
    initdb.end(None, Signal::KILL, Signal::KILL).await?;
    server.nobody_listens().await?;
    cluster::replace_pid(&home.data, &home.account)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_escapes_the_folder_of_the_socket() {
        let check = |runtime: &str, expected: &str| {
            assert_eq!(url("sentryops", "pass-1", Path::new(runtime)), expected);
        };
        check("/run/s-1", "postgresql://sentryops:pass-1@%2Frun%2Fs-1/sentryops");
    }

    #[test]
    fn tokio_postgres_reads_the_address_as_meant() {
        use tokio_postgres::config::Host;
        let address = url("sentryops_owner", "pa-ss_1", Path::new("/tmp/sentryops-0-12"));
        let config: tokio_postgres::Config = address.parse().unwrap();
        assert_eq!(config.get_hosts(), [Host::Unix("/tmp/sentryops-0-12".into())]);
        assert_eq!(config.get_user(), Some("sentryops_owner"));
        assert_eq!(config.get_password(), Some(b"pa-ss_1".as_slice()));
        assert_eq!(config.get_dbname(), Some("sentryops"));
    }

    #[test]
    fn only_scratch_gives_up_durability() {
        let runtime = Path::new("/run/x");
        let check = |durability, line: &str| {
            let text = configuration(runtime, durability);
            assert!(text.lines().any(|found| found == line), "{line}");
            assert!(text.contains("listen_addresses = ''\n"));
        };
        check(Durability::Durable, "fsync = on");
        check(Durability::Durable, "synchronous_commit = on");
        check(Durability::Scratch, "fsync = off");
    }
}
