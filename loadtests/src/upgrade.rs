//! A folder of an older version taken over by a newer one: `up --demo` of the older binary, some work, a stop, then `up` of
//! the newer binary on the same folder.
//!
//! Twice: stopped in good order, and killed with all its children while an import and a compliance run are on their way. What
//! users hold (password, tokens, API key, cursors) must go on, the jobs left behind must be done, nothing may be lost, doubled
//! or judged otherwise, and no secret may be made again. The older binary is built by whoever runs this, e.g. of the release
//! before: `loadtests upgrade --before OLD/sentryops --binary target/release/sentryops`.

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

mod belongings;
mod left;
mod rows;

use belongings::Belongings;
use left::Left;
use rows::Rows;

/// The arguments of `upgrade`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Fewer rows: to see that it works.
    #[arg(long)]
    quick: bool,
    /// The older binary, which makes the folder.
    #[arg(long, value_name = "BINARY")]
    before: PathBuf,
    /// The newer binary, which takes the folder over.
    #[arg(long, default_value = "target/release/sentryops")]
    binary: PathBuf,
    /// Writes the report as JSON, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// What randomness begins with; a new one each time without it.
    #[arg(long)]
    seed: Option<u64>,
}

/// How the older version ends.
#[derive(Debug, Clone, Copy)]
enum Stop {
    /// `SIGTERM`, and time to finish.
    Order,
    /// `SIGKILL` of its process group, as a power cut would.
    Kill,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<()> {
    let circumstances = Circumstances::of(&arguments.binary, arguments.quick)?;
    let before = Circumstances::of(&arguments.before, arguments.quick)?;
    let seed = random::seed(arguments.seed)?;
    let at: DateTime<Utc> = std::time::SystemTime::now().into();
    // The first file is imported whole; the second one is what the stop interrupts.
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
        vec![case.run("in order", Stop::Order).await?, case.run("kill", Stop::Kill).await?];
    let setting = format!("a folder of {} at {}", before.version, before.binary);
    let report = Report { scenario: "upgrade", setting, circumstances, seed, measurements };
    report.close(arguments.json.as_deref())
}

/// The assets of an inventory as a file, under external ids that no other of these files has.
fn file(folder: &Path, name: &str, inventory: &Inventory) -> Result<PathBuf> {
    let path = folder.join(name);
    let written = inventory.write(folder)?.assets;
    std::fs::write(&path, std::fs::read_to_string(written)?.replace("load:", &format!("{name}:")))?;
    Ok(path)
}

/// Both binaries, and the files that are imported.
struct Case<'a> {
    before: &'a Path,
    binary: &'a Path,
    small: &'a Path,
    large: &'a Path,
    second: i64,
}

impl Case<'_> {
    async fn run(&self, part: &'static str, stop: Stop) -> Result<Measurement> {
        progress(&format!("upgrade: {part}: the older version"));
        let folder = Folder::new()?;
        let server = Server::up(self.before, folder.path(), None).await?;
        let (email, password) = server.administrator()?;
        let mut belongings = Belongings::new(server.address, email, password).await?;
        left::import_whole(server.address, belongings.token(), self.small).await?;
        left::run_whole(server.address, belongings.token()).await?;
        belongings.take_cursors(server.address).await?;
        let postgres = rows::connect(folder.path()).await?;
        let before = Rows::read(&postgres, None).await?;
        let secrets = rows::secrets(folder.path())?;
        let left = Left::leave(server.address, belongings.token(), self.large).await?;
        drop(postgres);
        match stop {
            Stop::Order => server.stop().await.map(drop)?,
            Stop::Kill => server.kill()?,
        }
        progress(&format!("upgrade: {part}: the newer version"));
        let server = Server::up(self.binary, folder.path(), None).await?;
        let postgres = rows::connect(folder.path()).await?;
        let mut measurement = Measurement::new(
            part,
            format!(
                "{} assets there, {} more on their way when the older version ended.",
                before.assets, self.second
            ),
        );
        measurement.figure(
            "newer version: start to first answer",
            server.started_in.as_secs_f64(),
            "s",
        );
        measurement.check("secrets made again", rows::changed(&secrets, folder.path())?, 0);
        let applied = Rows::migrations(&postgres).await?;
        measurement.figure("migrations applied by it", number(applied - before.migrations), "");
        belongings.check(server.address, &mut measurement).await?;
        let run = left.check(server.address, belongings.token(), &mut measurement).await?;
        measurement.check("import left behind: rows created", run, self.second);
        self.compare(&postgres, &before, &mut measurement).await?;
        self.verify(folder.path(), &mut measurement).await?;
        drop(postgres);
        measurement.figure("stop of the newer version", server.stop().await?.as_secs_f64(), "s");
        Ok(measurement)
    }

    /// What the older version had finished is as it was; what it left is there once.
    async fn compare(
        &self,
        postgres: &Client,
        before: &Rows,
        measurement: &mut Measurement,
    ) -> Result<()> {
        let after = Rows::read(postgres, Some(&before.until)).await?;
        measurement.check("assets of before", after.assets, before.assets);
        measurement.check("postures of before", after.postures, before.postures);
        measurement.check("findings of before", after.findings, before.findings);
        measurement.check(
            "assets of before that are judged otherwise",
            before.differing(&after),
            0,
        );
        let whole = Rows::read(postgres, None).await?;
        let there = before.assets + self.second;
        measurement.check("assets in all", whole.assets, there);
        measurement.check("assets twice", whole.twice, 0);
        measurement.check("jobs buried", whole.buried, 0);
        Ok(())
    }

    /// `admin verify-posture` of the newer binary, which visits the one that runs.
    async fn verify(&self, folder: &Path, measurement: &mut Measurement) -> Result<()> {
        let mut command = child::command(self.binary);
        command.args(["admin", "verify-posture"]).env("DATA_DIR", folder.join("data"));
        let mut command = tokio::process::Command::from(command);
        let output = command.kill_on_drop(true).output().await?;
        let said = String::from_utf8(output.stdout)?;
        progress(&format!("upgrade: verify-posture: {}", said.trim().replace('\n', "; ")));
        let differ = said.lines().filter_map(|line| {
            line.split_once(" assets compared, ")?.1.split(' ').next()?.parse::<i64>().ok()
        });
        measurement.check("postures that differ from a look at everything", differ.sum(), 0);
        measurement.check(
            "exit code of verify-posture",
            output.status.code().map_or(-1, i64::from),
            0,
        );
        Ok(())
    }
}
