//! The files of a Postgres cluster below the data folder. It is made aside (`postgres.new`), synced, and renamed: a cluster
//! that exists is whole.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use tokio::time::Instant;
use tracing::info;

use super::Durability;
use super::account::{Account, read};
use super::child::{Child, Launcher};
use super::home::Home;
use super::log::Log;
use super::program;
use super::secret::Secrets;

/// The cluster of a data folder.
pub(super) fn path(data: &Path) -> PathBuf {
    data.join("postgres")
}

/// Makes the cluster if there is none.
pub(super) async fn make_if_missing(
    home: &Home,
    launcher: &Launcher,
    secrets: &Secrets,
    program: &program::Postgres,
    durability: Durability,
) -> Result<()> {
    if home.cluster_major()?.is_some() {
        return Ok(());
    }
    let began = Instant::now();
    let password = home.runtime.join("password");
    home.account.write(&password, secrets.admin.as_bytes())?;
    let made = make(home, launcher, &password, program, durability).await;
    fs::remove_file(&password).context("remove the password file of initdb")?;
    made?;
    fs::rename(aside(&home.data), path(&home.data)).context("move the new cluster")?;
    fs::File::open(&home.data)?.sync_all()?;
    let took = began.elapsed();
    info!("a PostgreSQL {} cluster was made in {} ms", program.major, took.as_millis());
    Ok(())
}

async fn make(
    home: &Home,
    launcher: &Launcher,
    password: &Path,
    program: &program::Postgres,
    durability: Durability,
) -> Result<()> {
    let folder = aside(&home.data);
    let mut tail = String::new();
    // The second for systems that lack the first.
    for locale in ["C.UTF-8", "C"] {
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        home.account.own_folder(&folder)?;
        let log = Log::begin(&home.data.join("log"), "initdb")?;
        let mut command = launcher.command(&program.initdb, "KILL");
        command.current_dir(&folder).arg("--pgdata").arg(&folder).arg("--pwfile").arg(password);
        command.args(["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8"]);
        command.args(["--data-checksums", "--no-instructions"]).arg(format!("--locale={locale}"));
        if durability == Durability::Scratch {
            command.arg("--no-sync");
        }
        let mut initdb = Child::spawn("initdb", Signal::KILL, command, None, log).await?;
        if initdb.status().await.is_some_and(|status| status.success()) {
            return Ok(());
        }
        tail = initdb.log.tail();
        if !tail.contains("locale") {
            break;
        }
    }
    bail!("initdb could not make a cluster; {tail}")
}

/// Where a cluster is while it is made.
pub(super) fn aside(data: &Path) -> PathBuf {
    data.join("postgres.new")
}

/// Where Postgres notes its number.
pub(super) fn pid_file(data: &Path) -> PathBuf {
    path(data).join("postmaster.pid")
}

/// Makes a pid file that was left behind stop nobody.
pub(super) fn disown_pid_file(data: &Path, account: &Account) -> Result<()> {
    let path = pid_file(data);
    match read(&path)? {
        Some(noted) => account.write(&path, disowned(&noted, process::id()).as_bytes()),
        None => Ok(()),
    }
}

/// A pid file that no longer stops Postgres if its number has passed to an unrelated process: it names us instead, and
/// Postgres disregards its parent. Removing the file would be simpler, but its other lines are how Postgres makes sure that
/// no process of the old server still writes.
fn disowned(noted: &str, we: u32) -> String {
    let rest = noted.split_once('\n').map_or("", |(_, rest)| rest);
    format!("{we}\n{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disowned_pid_file_names_us_and_keeps_its_memory_key() {
        let check = |noted: &str, expected: &str| assert_eq!(disowned(noted, 7), expected);
        check(
            "123\n/data\n1700\n5432\n/run\n\n 5432001 32769\n",
            "7\n/data\n1700\n5432\n/run\n\n 5432001 32769\n",
        );
        check("123", "7\n");
        check("", "7\n");
    }
}
