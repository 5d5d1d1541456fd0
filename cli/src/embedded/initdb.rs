//! Creates a Postgres cluster. The new cluster is created in the folder `postgres.new`, synced and then renamed, so a
//! cluster in the folder `postgres` is complete.

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

/// Creates the cluster if it does not exist.
pub(super) async fn create_if_missing(
    home: &Home,
    launcher: &Launcher,
    secrets: &Secrets,
    program: &program::Postgres,
    durability: Durability,
) -> Result<()> {
    if home.cluster_major()?.is_some() {
        return Ok(());
    }
    let started_at = Instant::now();
    let password = home.runtime.join("password");
    home.account.write(&password, secrets.admin.as_bytes())?;
    let result = run_initdb(home, launcher, &password, program, durability).await;
    fs::remove_file(&password).context("cannot remove the password file of initdb")?;
    result?;
    fs::rename(cluster::new_path(&home.data), cluster::path(&home.data))
        .context("cannot rename the new cluster")?;
    fs::File::open(&home.data)?.sync_all()?;
    let duration = started_at.elapsed();
    info!("created a PostgreSQL {} cluster in {} ms", program.major, duration.as_millis());
    Ok(())
}

async fn run_initdb(
    home: &Home,
    launcher: &Launcher,
    password: &Path,
    program: &program::Postgres,
    durability: Durability,
) -> Result<()> {
    let folder = cluster::new_path(&home.data);
    let mut tail = String::new();
    // The second attempt, with `C`, is for systems without the locale `C.UTF-8`.
    for locale in ["C.UTF-8", "C"] {
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        home.account.create_private_folder(&folder)?;
        let log = Log::create(&home.data.join("log"), "initdb")?;
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
    bail!("initdb could not create a database cluster; {tail}")
}
