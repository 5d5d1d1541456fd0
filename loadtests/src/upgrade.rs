//! The scenario `upgrade`: the upgrade of a data folder from an older to a newer version. `up --demo` of the older
//! binary creates the data folder and is stopped while an import and a compliance run are in progress. Then `up` of the
//! newer binary continues with the same folder.
//!
//! The scenario has two parts: in the first, the older version is stopped gracefully; in the second, it is killed with
//! all its child processes. Credentials (password, tokens, API key) and cursors of users must stay valid. The
//! unfinished jobs must be completed. No row may be lost, duplicated or evaluated differently, and no secret may be
//! regenerated. The caller provides the older binary, for example that of the previous release:
//! `loadtests upgrade --before OLD/sentryops --binary target/release/sentryops`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use chrono::{DateTime, Utc};
use clap::Args;
use tokio_postgres::Client;

use crate::{
    child,
    folder::Folder,
    inventory::{Inventory, Shape},
    measurement::{Measurement, Report, number},
    random,
    report::{Circumstances, progress},
    server::Server,
};

mod credentials;
mod rows;
mod unfinished_work;

use credentials::Credentials;
use rows::Rows;
use unfinished_work::UnfinishedWork;

/// Arguments of the `upgrade` scenario.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Runs a smoke test with fewer rows.
    #[arg(long)]
    quick: bool,
    /// Path of the older binary, which creates the data folder.
    #[arg(long, value_name = "BINARY")]
    before: PathBuf,
    /// Path of the newer binary, which upgrades the data folder.
    #[arg(long, default_value = "target/release/sentryops")]
    binary: PathBuf,
    /// Also writes the report to this file as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Seed of the random numbers; by default a new one for each run.
    #[arg(long)]
    seed: Option<u64>,
}

/// Way in which the older version is stopped.
#[derive(Debug, Clone, Copy)]
enum Stop {
    /// Graceful shutdown with `SIGTERM`.
    Graceful,
    /// `SIGKILL` of the process group, as after a power failure.
    Kill,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<()> {
    let circumstances = Circumstances::of(&arguments.binary, arguments.quick)?;
    let before = Circumstances::of(&arguments.before, arguments.quick)?;
    let seed = random::seed(arguments.seed)?;
    let at: DateTime<Utc> = std::time::SystemTime::now().into();
    // The first file is imported completely; the stop interrupts the import of the second.
    let (first, second) = if arguments.quick { (500, 20_000) } else { (5_000, 100_000) };
    let files = Folder::new()?;
    let small =
        file(files.path(), "small", &Inventory { shape: Shape::Tiers, assets: first, seed, at })?;
    let large =
        file(files.path(), "large", &Inventory { shape: Shape::Tiers, assets: second, seed, at })?;
    let case = Case {
        before: &arguments.before,
        binary: &arguments.binary,
        small: &small,
        large: &large,
        second: i64::try_from(second)?,
    };
    let measurements =
        vec![case.run("in order", Stop::Graceful).await?, case.run("kill", Stop::Kill).await?];
    let setting = format!("a data folder created by {} at {}", before.version, before.binary);
    let report = Report { scenario: "upgrade", setting, circumstances, seed, measurements };
    report.publish(arguments.json.as_deref())
}

/// Writes the assets of an inventory to a file. The external ids begin with `name`, so that they differ between files.
fn file(folder: &Path, name: &str, inventory: &Inventory) -> Result<PathBuf> {
    let path = folder.join(name);
    let written = inventory.write(folder)?.assets;
    std::fs::write(&path, std::fs::read_to_string(written)?.replace("load:", &format!("{name}:")))?;
    Ok(path)
}

/// The two binaries, and the files to import.
struct Case<'a> {
    before: &'a Path,
    binary: &'a Path,
    small: &'a Path,
    large: &'a Path,
    /// Number of assets in the file `large`.
    second: i64,
}

impl Case<'_> {
    async fn run(&self, part: &'static str, stop: Stop) -> Result<Measurement> {
        progress(&format!("upgrade: {part}: running the older version"));
        let folder = Folder::new()?;
        let server = Server::up(self.before, folder.path(), None).await?;
        let (email, password) = server.administrator()?;
        let mut credentials = Credentials::new(server.address, email, password).await?;
        unfinished_work::import_whole(server.address, credentials.token(), self.small).await?;
        unfinished_work::run_whole(server.address, credentials.token()).await?;
        credentials.take_cursors(server.address).await?;
        let postgres = rows::connect(folder.path()).await?;
        let before = Rows::read(&postgres, None).await?;
        let secrets = rows::secrets(folder.path())?;
        let unfinished_work =
            UnfinishedWork::start(server.address, credentials.token(), self.large).await?;
        drop(postgres);
        match stop {
            Stop::Graceful => server.stop().await.map(drop)?,
            Stop::Kill => server.kill()?,
        }
        progress(&format!("upgrade: {part}: running the newer version"));
        let server = Server::up(self.binary, folder.path(), None).await?;
        let postgres = rows::connect(folder.path()).await?;
        let mut measurement = Measurement::new(
            part,
            format!(
                "{} assets stored, and {} more being imported, when the older version stopped.",
                before.assets, self.second
            ),
        );
        measurement.figure(
            "newer version: start to first response",
            server.startup_time.as_secs_f64(),
            "s",
        );
        measurement.check("regenerated secrets", rows::changed(&secrets, folder.path())?, 0);
        let applied = Rows::migrations(&postgres).await?;
        measurement.figure(
            "migrations applied by the newer version",
            number(applied - before.migrations),
            "",
        );
        credentials.check(server.address, &mut measurement).await?;
        let run =
            unfinished_work.check(server.address, credentials.token(), &mut measurement).await?;
        measurement.check("unfinished import: rows created", run, self.second);
        self.compare(&postgres, &before, &mut measurement).await?;
        self.verify(folder.path(), &mut measurement).await?;
        drop(postgres);
        measurement.figure("newer version: time to stop", server.stop().await?.as_secs_f64(), "s");
        Ok(measurement)
    }

    /// Checks that the rows of the older version are unchanged, and that each row of its unfinished import is stored
    /// exactly once.
    async fn compare(
        &self,
        postgres: &Client,
        before: &Rows,
        measurement: &mut Measurement,
    ) -> Result<()> {
        let after = Rows::read(postgres, Some(&before.until)).await?;
        measurement.check("assets of the older version", after.assets, before.assets);
        measurement.check("postures of the older version", after.postures, before.postures);
        measurement.check("findings of the older version", after.findings, before.findings);
        measurement.check(
            "assets of the older version with other verdicts",
            before.count_changed_verdicts(&after),
            0,
        );
        let all_rows = Rows::read(postgres, None).await?;
        let expected_total = before.assets + self.second;
        measurement.check("assets in total", all_rows.assets, expected_total);
        measurement.check("duplicate assets", all_rows.duplicates, 0);
        measurement.check("jobs buried", all_rows.buried, 0);
        Ok(())
    }

    /// Runs `admin verify-posture` of the newer binary against the running server.
    async fn verify(&self, folder: &Path, measurement: &mut Measurement) -> Result<()> {
        let mut command = child::command(self.binary);
        command.args(["admin", "verify-posture"]).env("DATA_DIR", folder.join("data"));
        let mut command = tokio::process::Command::from(command);
        let output = command.kill_on_drop(true).output().await?;
        let output_text = String::from_utf8(output.stdout)?;
        progress(&format!("upgrade: verify-posture: {}", output_text.trim().replace('\n', "; ")));
        let differ = output_text.lines().filter_map(|line| {
            line.split_once(" assets compared, ")?.1.split(' ').next()?.parse::<i64>().ok()
        });
        measurement.check("postures that differ from a full evaluation", differ.sum(), 0);
        measurement.check(
            "exit code of verify-posture",
            output.status.code().map_or(-1, i64::from),
            0,
        );
        Ok(())
    }
}
