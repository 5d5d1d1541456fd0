//! `sentryops up` with its private services: restarted, shared with other commands, killed, refused, never root.

use std::{
    env,
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde_json::json;

use crate::{
    client::{Client, own_address},
    server::{Api, BINARY, run, text, until, within},
    team::{PASSWORD, log_in, sign_in, unique},
};

mod compatibility;

const QUERY: &str = "{ viewer { permissions } }";

/// Parent of a data folder, removed afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let folder =
            env::temp_dir().join(format!("sentryops-it-{}-{}", std::process::id(), unique()));
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
        Self(folder)
    }

    fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        // The services are searched in PATH.
        command.args(arguments).env_clear().env("PATH", env::var_os("PATH").unwrap());
        command.env("DATA_DIR", self.data()).env("LOG_LEVEL", "info");
        command.env("LISTEN_ADDR", "127.0.0.1:0").env("HEALTH_ADDR", "127.0.0.1:0");
        command
    }

    async fn up(&self) -> Api {
        Api::start(self.command(&["up"])).await
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Removal may fail while services of a failed test still write.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Returns the services on a data folder: the processes that work in it.
fn processes_in(folder: &Path) -> Vec<Pid> {
    let Ok(folder) = fs::metadata(folder) else { return Vec::new() };
    let is_here = |pid: &Pid| {
        fs::metadata(format!("/proc/{}/cwd", pid.as_raw_nonzero()))
            .is_ok_and(|other| (other.dev(), other.ino()) == (folder.dev(), folder.ino()))
    };
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .filter(is_here)
        .collect()
}

fn services_on(data: &Path) -> Vec<Pid> {
    [processes_in(&data.join("postgres")), processes_in(&data.join("redis"))].concat()
}

fn postmaster(data: &Path) -> Pid {
    let recorded = fs::read_to_string(data.join("postgres/postmaster.pid")).unwrap();
    Pid::from_raw(recorded.lines().next().unwrap().parse().unwrap()).unwrap()
}

/// Returns the one-time password that `up` printed for the first administrator.
fn printed_password(printed: &str) -> Option<String> {
    let line = printed.lines().find(|line| line.contains("admin@localhost"))?;
    line.split_whitespace().last().map(ToOwned::to_owned)
}

#[tokio::test]
async fn a_second_start_finds_people_sessions_and_keys_again() {
    let folder = Folder::new();
    let data = folder.data();
    let mut up = folder.up().await;
    let create = [
        "admin",
        "create-user",
        "--email",
        "visitor@up.test",
        "--name",
        "V",
        "--role",
        "viewer",
        "--password-stdin",
    ];
    let visit = run(folder.command(&create), PASSWORD);
    assert!(visit.status.success(), "a running instance is visited: {}", text(&visit.stderr));
    let person = sign_in(&Client::new(&up, own_address()), "", "visitor@up.test").await;
    let twice = run(folder.command(&["up"]), "");
    assert_eq!(twice.status.code(), Some(1));
    let output = text(&twice.stderr);
    assert!(
        output.contains("another sentryops is running") && output.contains(data.to_str().unwrap()),
        "{output}"
    );
    person.client.get_data(QUERY, json!({})).await;
    let mode = |name: &str| fs::metadata(data.join(name)).unwrap().mode() & 0o777;
    for folder in ["secrets", "postgres", "log"] {
        assert_eq!(mode(folder), 0o700, "{folder}");
    }
    for file in ["passwords", "secrets/jwt_keys", "secrets/encryption_keys"] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
    assert!(up.end().await.success());
    assert_eq!(services_on(&data), []);
    let password = printed_password(&up.printed()).unwrap();

    let mut up = folder.up().await;
    person.client.at(&up).get_data(QUERY, json!({})).await;
    let nobody = Client::new(&up, own_address());
    let admin = log_in(&nobody, "admin@localhost", &password).await;
    assert_eq!(admin.codes(), Vec::<&str>::new(), "{}", admin.text);
    assert!(up.end().await.success());
    assert_eq!(printed_password(&up.printed()), None, "a password is shown once");
}

#[tokio::test]
async fn no_service_is_root_listens_or_sees_our_environment() {
    let folder = Folder::new();
    let data = folder.data();
    let mut command = folder.command(&["up"]);
    command.env("CANARY_OF_ENVIRONMENT", "1");
    let mut up = Api::start(command).await;
    let mut seen = 0;
    for pid in services_on(&data) {
        let read = |name| fs::read_to_string(format!("/proc/{}/{name}", pid.as_raw_nonzero()));
        // A Postgres backend may end at any time.
        let (Ok(status), Ok(environment)) = (read("status"), read("environ")) else { continue };
        let line = |name| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
        assert!(!line("Uid:").split_whitespace().any(|uid| uid == "0"), "{status}");
        assert!(!line("Gid:").split_whitespace().any(|gid| gid == "0"), "{status}");
        assert!(!geteuid().is_root() || line("Groups:").is_empty(), "{status}");
        assert!(!environment.contains("CANARY_OF_ENVIRONMENT"), "{environment}");
        assert_eq!(listening(pid), 0, "a service listens on a network");
        seen += 1;
    }
    assert!(seen > 2, "{seen}");

    // A killed service is named in the log, and all services stop.
    kill_process(postmaster(&data), Signal::KILL).unwrap();
    let ended = async || services_on(&data).is_empty().then_some(());
    within(Duration::from_secs(20), "everything has ended", ended).await;
    let named = async || up.log().contains("postgres ended unexpectedly").then_some(());
    until("what died is named", named).await;
    assert_eq!(up.end().await.code(), Some(1));
}

/// Counts the listening TCP sockets of a process.
fn listening(pid: Pid) -> usize {
    let pid = pid.as_raw_nonzero();
    let sockets: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok()?.to_str().map(ToOwned::to_owned))
        .filter_map(|link| Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    ["tcp", "tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(format!("/proc/{pid}/net/{table}")).ok())
        .flat_map(|table| table.lines().map(ToOwned::to_owned).collect::<Vec<_>>())
        .filter(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            // State 0A is LISTEN, and the tenth field is the inode.
            fields.len() > 9 && fields[3] == "0A" && sockets.iter().any(|inode| *inode == fields[9])
        })
        .count()
}

#[tokio::test]
async fn after_a_kill_of_us_the_next_start_finds_everything_again() {
    let folder = Folder::new();
    let data = folder.data();
    let up = folder.up().await;
    let create = [
        "admin",
        "create-user",
        "--email",
        "kept@up.test",
        "--name",
        "K",
        "--role",
        "viewer",
        "--password-stdin",
    ];
    assert!(run(folder.command(&create), PASSWORD).status.success());
    let orphans = services_on(&data);
    assert!(orphans.len() > 2, "{orphans:?}");
    drop(up); // Drop sends SIGKILL.
    let mut up = folder.up().await;
    sign_in(&Client::new(&up, own_address()), "", "kept@up.test").await;
    let now = services_on(&data);
    assert!(!orphans.iter().any(|pid| now.contains(pid)), "{orphans:?} {now:?}");
    assert!(up.end().await.success());

    // A start that fails reports why, and leaves no process.
    let settings = data.join("postgres/postgresql.auto.conf");
    fs::write(settings, "shared_buffers = 'nonsense'\n").unwrap();
    let refused = run(folder.command(&["up"]), "");
    let output = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{output}");
    assert!(output.contains("postgres did not start") && output.contains("nonsense"), "{output}");
    assert_eq!(services_on(&data), []);

    // A cluster whose passwords are missing is not replaced by an empty one.
    fs::rename(data.join("passwords"), data.join("hidden")).unwrap();
    let refused = run(folder.command(&["up"]), "");
    let output = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{output}");
    assert!(output.contains("passwords is missing"), "{output}");
}
