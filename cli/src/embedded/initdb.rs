//! The making of a Postgres cluster. It is made aside (`postgres.new`), synced, and renamed: a cluster that exists is whole.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use tokio::time::Instant;
use tracing::info;

use super::Durability;
use super::child::{Child, Launcher};
use super::cluster;
use super::home::Home;
use super::log::Log;
use super::program;
use super::secret::Secrets;

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
    fs::rename(cluster::aside(&home.data), cluster::path(&home.data))
        .context("move the new cluster")?;
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
    let folder = cluster::aside(&home.data);
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
