//! The private Postgres server, on a Unix socket, with password authentication only.
//!
//! The settings of the server are written at each start to `<data>/postgres.conf`, which Postgres can read but not
//! write; `ALTER SYSTEM` overrides them. The log of the server contains no statements and no error details, because
//! both can quote rows and passwords. The logins are reset at each start, so manual changes of their passwords and
//! rights do not last. The migrations create the group roles.

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
/// Maximum start time after a crash. Postgres then replays its write-ahead log, and rejects connections meanwhile.
const RECOVERY_TIMEOUT: Duration = Duration::from_mins(10);
const STOP_TIMEOUT: Duration = Duration::from_secs(25);
const IMMEDIATE_STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// URLs of the private database. Each contains a password.
#[derive(Clone)]
pub(crate) struct DatabaseUrls {
    /// URL of the superuser, which creates the roles.
    pub(crate) admin: String,
    /// URL of `sentryops_owner`, which owns the database and migrates it.
    pub(crate) owner: String,
    /// URL of `sentryops`, the application's login: NOINHERIT, without own privileges.
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
    // Of the characters in the path of a runtime folder, only slashes need escaping.
    let host = runtime.display().to_string().replace('/', "%2F");
    format!("postgresql://{user}:{password}@{host}/sentryops")
}

/// Starts the server. [`wait_until_ready`] waits until the server accepts connections.
pub(super) async fn spawn(
    home: &Home,
    launcher: &Launcher,
    program: &program::Postgres,
    durability: Durability,
) -> Result<Child> {
    let settings = home.data.join("postgres.conf");
    write_own(&settings, configuration(&home.runtime, durability).as_bytes(), 0o644)?;
    let cluster = cluster::path(&home.data);
    let log = Log::create(&home.data.join("log"), "postgres")?;
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
pub(super) async fn wait_until_ready(
    home: &Home,
    secrets: &Secrets,
    child: &mut Child,
) -> Result<()> {
    let admin = loop_until_connected(home, secrets, child).await?;
    create_logins(&admin, secrets).await.context("cannot create the logins of the private database")
}

async fn loop_until_connected(home: &Home, secrets: &Secrets, child: &mut Child) -> Result<Client> {
    let started_at = Instant::now();
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
        let time_limit = if is_recovering { RECOVERY_TIMEOUT } else { READY_TIMEOUT };
        if started_at.elapsed() > time_limit {
            let seconds = time_limit.as_secs();
            bail!("postgres accepts no connection after {seconds} s; {}", child.log.tail());
        }
        tokio::select! {
            exit_status = child.wait_for_exit() => bail!("postgres did not start ({exit_status}); {}", child.log.tail()),
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

async fn create_logins(admin: &Client, secrets: &Secrets) -> Result<(), tokio_postgres::Error> {
    let Secrets { owner, app, .. } = secrets;
    let no_privileges = "NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS";
    // The passwords need no quoting: see `secret`.
    admin
        .batch_execute(&format!(
            "DO $$ BEGIN CREATE ROLE sentryops_owner;
             EXCEPTION WHEN duplicate_object THEN NULL; END $$;
             DO $$ BEGIN CREATE ROLE sentryops;
             EXCEPTION WHEN duplicate_object THEN NULL; END $$;
             ALTER ROLE sentryops_owner LOGIN INHERIT {no_privileges} PASSWORD '{owner}';
             ALTER ROLE sentryops LOGIN NOINHERIT {no_privileges} PASSWORD '{app}'"
        ))
        .await?;
    let existing =
        admin.query_opt("SELECT 1 FROM pg_database WHERE datname = 'sentryops'", &[]).await?;
    if existing.is_none() {
        admin.batch_execute("CREATE DATABASE sentryops OWNER sentryops_owner").await?;
    }
    Ok(())
}

/// Stops the server: first by a fast shutdown, which closes all connections; then by an immediate shutdown, after which
/// the next start has to recover. A scratch server gets the immediate shutdown only.
pub(super) async fn stop(mut child: Child, home: &Home, durability: Durability) -> Result<()> {
    let graceful = (Signal::INT, STOP_TIMEOUT);
    let immediate = (Signal::QUIT, IMMEDIATE_STOP_TIMEOUT);
    let stopped = match durability {
        Durability::Durable => child.stop(&[graceful, immediate]).await,
        Durability::Scratch => child.stop(&[immediate]).await,
    };
    // The processes of a killed server end automatically, but possibly later than `Services::stop` promises.
    stopped.and(stop_orphans(home).await)
}

/// Stops servers and single server processes that an earlier run left, and replaces the pid in the pid file.
pub(super) async fn stop_orphans(home: &Home) -> Result<()> {
    let (cluster, new_cluster) = (cluster::path(&home.data), cluster::new_path(&home.data));
    let socket = home.runtime.join(runtime::POSTGRES_SOCKET);
    let uid = home.account.uid;
    let pid_file = cluster::pid_file(&home.data);
    let pid_file_text = read(&pid_file)?.unwrap_or_default();
    let leader = pid_file_text.lines().next().and_then(|pid| Pid::from_raw(pid.parse().ok()?));
    let server = OrphanSearch { folder: &cluster, socket: &socket, uid };
    // Without the leader (the server), the other processes cannot shut down gracefully, so QUIT is sent to them.
    server.stop(leader, Signal::INT, Signal::QUIT).await?;
    let initdb = OrphanSearch { folder: &new_cluster, socket: &socket, uid };
    initdb.stop(None, Signal::KILL, Signal::KILL).await?;
    server.check_no_listener().await?;
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
