//! The scenario `import`: files are uploaded over HTTP and imported by a worker, and the import runs are polled over
//! GraphQL until they end.
//!
//! The assets of a generated inventory are imported twice, then the dependencies are imported twice. With `--kill`, the
//! assets are also imported into another organization while worker processes are killed; the same checks must hold as
//! after the import without kills. API and worker are separate processes, so that the memory of each can be measured.
//! The stores sync to disk.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;
use chrono::{DateTime, Utc};
use clap::Args;

use crate::{
    deployment::{Deployment, Tenant},
    inventory::{Inventory, InventoryFiles, Shape},
    measurement::{Measurement, Report, number},
    options::{DataOptions, Options},
    random::Random,
    report::{self, progress},
    stores,
    upload::{self, Imported, Kind, Upload},
    usage::Memory,
};

const TARGET: &str = "≥ 10,000";
/// Number of worker processes in the kill part.
const PROCESSES: usize = 2;
/// Range of the delay from observed progress of the import to the next kill.
const MOVES_FOR: (Duration, Duration) = (Duration::ZERO, Duration::from_millis(800));

const ASSETS: &str = "SELECT count(*) FROM asset JOIN organization ON organization.id = asset.org_id WHERE slug = $1";
const TWICE: &str = "SELECT count(*) - count(DISTINCT external_id) FROM asset
    JOIN organization ON organization.id = asset.org_id WHERE slug = $1";
const AUDITED: &str =
    "SELECT count(*) FROM audit_entry JOIN organization ON organization.id = audit_entry.org_id
    WHERE slug = $1 AND action = 'asset.created'";
const EDGES: &str = "SELECT count(*) FROM dependency JOIN organization ON organization.id = dependency.org_id WHERE slug = $1";
const CHUNKS: &str = "SELECT count(*) FROM import_chunk JOIN organization ON organization.id = import_chunk.org_id WHERE slug = $1";

/// Arguments of the `import` scenario.
#[derive(Args)]
#[command(mut_arg("quick", |quick| quick.help("Smoke test: fewer rows and fewer kills")))]
pub(crate) struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Rows of the asset file; default 100,000, or 5,000 with `--quick`.
    #[arg(long)]
    rows: Option<usize>,
    /// Also kills worker processes during one more import.
    #[arg(long)]
    kill: bool,
    #[command(flatten)]
    data: DataOptions,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<()> {
    let options = &arguments.options;
    let circumstances = options.circumstances()?;
    if !arguments.data.inside {
        return stores::exec_under_services(&options.binary);
    }
    let assets = arguments.rows.unwrap_or(options.either(100_000, 5_000));
    let seed = crate::random::seed(arguments.data.seed)?;
    let at: DateTime<Utc> = std::time::SystemTime::now().into();
    let inventory = Inventory { shape: Shape::Tiers, assets, seed, at };
    let mut deployment = Deployment::open(&options.binary, &["import"]).await?;
    progress(&format!("import: writing {assets} assets to files"));
    let files = inventory.write(deployment.folder.path())?;
    let mut measurements = vec![quiet(&deployment, &inventory, &files).await?];
    if arguments.kill {
        let kills = options.either(10, 3);
        measurements.push(killed(&mut deployment, &inventory, &files.assets, kills).await?);
    }
    deployment.close().await?;
    let setting = "durable stores".to_owned();
    let report = Report { scenario: "import", setting, circumstances, seed, measurements };
    report.publish(options.json.as_deref())
}

/// Imports the files while no process is killed.
async fn quiet(
    deployment: &Deployment,
    inventory: &Inventory,
    files: &InventoryFiles,
) -> Result<Measurement> {
    let tenant = deployment.tenant("quiet").await?;
    let bytes = std::fs::metadata(&files.assets)?.len();
    let mut measurement = Measurement::new(
        "import",
        format!(
            "{} assets in {} MiB, {} dependencies; one API and one worker. Memory is peak RSS, and the largest sampled PSS. \
             CPU is user and system time; that of Postgres covers all its processes.",
            report::whole(number(inventory.assets)),
            bytes >> 20,
            report::whole(number(files.edges)),
        ),
    );
    let rows = i64::try_from(inventory.assets)?;
    for (what, kind, file, expected) in [
        ("assets", Kind::Assets, &files.assets, [rows, 0]),
        ("assets again", Kind::Assets, &files.assets, [0, rows]),
        ("dependencies", Kind::Dependencies, &files.dependencies, [i64::try_from(files.edges)?, 0]),
        (
            "dependencies again",
            Kind::Dependencies,
            &files.dependencies,
            [0, i64::try_from(files.edges)?],
        ),
    ] {
        progress(&format!("import: {what}"));
        let imported = upload::import(deployment, &tenant, kind, file).await?;
        figures(&mut measurement, what, &imported);
        let run = &imported.run;
        measurement.check(format!("{what}: created"), run.created, expected[0]);
        measurement.check(format!("{what}: unchanged"), run.unchanged, expected[1]);
    }
    checks(deployment, &tenant, &mut measurement, inventory).await?;
    measurement.check(
        "dependencies stored",
        deployment.count(&tenant, EDGES).await?,
        i64::try_from(files.edges)?,
    );
    Ok(measurement)
}

/// Imports the assets while worker processes are killed.
async fn killed(
    deployment: &mut Deployment,
    inventory: &Inventory,
    file: &Path,
    kills: usize,
) -> Result<Measurement> {
    progress("import: killing workers");
    let tenant = deployment.tenant("killed").await?;
    let mut random = Random::new(inventory.seed);
    while deployment.workers.len() < PROCESSES {
        deployment.start_worker()?;
    }
    let mut upload = Upload::send(deployment, &tenant, Kind::Assets, file).await?;
    let (mut seen, mut done, mut kill_at) = (0, 0, None);
    let (run, took) = upload
        .wait_until_ended(&tenant, |run| {
            if run.done > seen && kill_at.is_none() {
                kill_at = Some(Instant::now() + random.between(MOVES_FOR.0, MOVES_FOR.1));
            }
            if done < kills && kill_at.is_some_and(|at| at <= Instant::now()) {
                deployment.workers.swap_remove(random.below(deployment.workers.len())).kill()?;
                deployment.start_worker()?;
                (seen, kill_at) = (run.done, None);
                done += 1;
            }
            Ok(())
        })
        .await?;
    let mut measurement = Measurement::new(
        "kill",
        format!(
            "One of {PROCESSES} workers is killed (SIGKILL) up to {} ms after each observed progress of the import, and replaced immediately; seed {}.",
            MOVES_FOR.1.as_millis(),
            inventory.seed
        ),
    );
    measurement.figure("kills", number(done), "");
    measurement.figure("upload and import", took.as_secs_f64(), "s");
    let rows = i64::try_from(inventory.assets)?;
    measurement.check("rows", run.rows, rows);
    measurement.check("done", run.done, rows);
    measurement.check("created", run.created, rows);
    measurement.check("updated", run.updated, 0);
    measurement.check("unchanged", run.unchanged, 0);
    checks(deployment, &tenant, &mut measurement, inventory).await?;
    Ok(measurement)
}

fn figures(measurement: &mut Measurement, what: &str, imported: &Imported) {
    let Imported { run, uploaded_in, took, api, worker, postgres } = imported;
    let rows = number(run.rows);
    let rate = |took: &Duration| rows / took.as_secs_f64();
    let mebibytes = |kib: u32| f64::from(kib) / 1024.0;
    measurement.figure(format!("{what}: upload"), rate(uploaded_in), "rows/s");
    measurement.figure_with_target(
        format!("{what}: upload and import"),
        rate(took),
        "rows/s",
        TARGET,
    );
    for (who, cpu) in [("API", &api.cpu), ("worker", &worker.cpu), ("Postgres", postgres)] {
        measurement.figure(
            format!("{what}: CPU of {who}"),
            cpu.as_secs_f64() * 1e6 / rows,
            "µs/row",
        );
    }
    for (who, taken) in [("API", api), ("worker", worker)] {
        let Memory { rss_kib, pss_kib } = taken.memory;
        measurement.figure(format!("{what}: memory of {who}, RSS"), mebibytes(rss_kib), "MiB");
        measurement.figure(format!("{what}: memory of {who}, PSS"), mebibytes(pss_kib), "MiB");
    }
}

/// Adds the checks that must hold after every import of the assets, with or without kills.
async fn checks(
    deployment: &Deployment,
    tenant: &Tenant,
    measurement: &mut Measurement,
    inventory: &Inventory,
) -> Result<()> {
    let rows = i64::try_from(inventory.assets)?;
    measurement.check("assets stored", deployment.count(tenant, ASSETS).await?, rows);
    measurement.check("assets stored twice", deployment.count(tenant, TWICE).await?, 0);
    measurement.check(
        "audit entries of created assets",
        deployment.count(tenant, AUDITED).await?,
        rows,
    );
    measurement.check(
        "import chunks left in the database",
        deployment.count(tenant, CHUNKS).await?,
        0,
    );
    Ok(())
}
