//! The part `scan`: compliance runs of organizations of several sizes, with one and with two worker processes. Each
//! organization has a first run, a second run without changes, and a third run after 1 % of its assets have changed.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use super::{
    run::{Counts, Run},
    seeded::{CHANGED_EVERY, Seeding},
};
use crate::{
    deployment::{Deployment, Tenant},
    measurement::{Measurement, number},
    report::{Table, progress, whole},
    usage::{self, Observation},
};

/// Timeout for the write statistics of Postgres. A connection reports its writes with its next statement, or after 10
/// s.
const STATISTICS_WITHIN: Duration = Duration::from_secs(15);
const POLL_EVERY: Duration = Duration::from_millis(200);
/// Number of assets from which the duration of a run must grow at most linearly with the number of assets.
const LINEAR_FROM: i64 = 10_000;
/// Maximum ratio of the duration per asset to the duration per asset in the next smaller organization.
const LINEAR: f64 = 1.2;
const RULES: i64 = 16;

const WAL: &str = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint";
/// Query for the number of posture rows that the latest run wrote, recognised by their evaluation time. A posture has
/// all verdicts and the score of one asset.
const POSTURES: &str = "SELECT count(*) FROM posture JOIN organization ON organization.id = posture.org_id
    WHERE slug = $1 AND evaluated_at >= (SELECT max(started_at) FROM compliance_run AS run WHERE run.org_id = organization.id)";
const FINDINGS: &str = "SELECT count(*) FROM finding JOIN organization ON organization.id = finding.org_id
    WHERE slug = $1 AND changed_at >= (SELECT max(started_at) FROM compliance_run AS run WHERE run.org_id = organization.id)";
const LIVE: &str =
    "SELECT count(*) FROM finding JOIN organization ON organization.id = finding.org_id
    WHERE slug = $1 AND ended_at IS NULL";
/// Query for the numbers of rows inserted and updated in `finding` and `posture`, from the statistics of Postgres.
const WRITTEN: &str = "SELECT relname::text, n_tup_ins, n_tup_upd FROM pg_stat_user_tables
    WHERE relname IN ('finding', 'posture') ORDER BY relname";

/// Measurements of one compliance run.
#[derive(Debug, Serialize)]
struct Row {
    assets: i64,
    workers: usize,
    run: &'static str,
    seconds: f64,
    counts: Counts,
    posture_rows: i64,
    finding_rows: i64,
    wal_bytes: i64,
    /// Peak resident set size of each worker, in KiB.
    peak_kib: Vec<u32>,
    worker_cpu_seconds: f64,
    postgres_cpu_seconds: f64,
}

/// An organization with measured compliance runs.
pub(super) struct MeasuredOrganization {
    pub(super) tenant: Tenant,
    /// Id of the organization's last compliance run.
    pub(super) run: String,
    pub(super) assets: i64,
}

/// Measures the runs of organizations of all sizes. Also returns the last organization, which is the largest.
pub(super) async fn measure(
    deployment: &mut Deployment,
    sizes: &[i64],
    seed: u64,
) -> Result<(Measurement, MeasuredOrganization)> {
    let mut measurement = Measurement::new(
        "scan",
        format!(
            "Each run is started over HTTP and polled every 20 ms. first: the first run. again: without changes. 1 %: after one fact of one asset in \
             {CHANGED_EVERY} was inverted by SQL, bypassing change detection. Rows are those written to posture and finding. WAL is the volume logged by \
             Postgres. CPU is user and system time; that of Postgres covers all its processes. Peak is the peak RSS of each worker.",
        ),
    );
    let (mut rows, mut last) = (Vec::new(), None);
    for workers in [1, 2] {
        while deployment.workers.len() < workers {
            deployment.join_worker().await?;
        }
        for assets in sizes {
            let tenant = deployment.tenant(&format!("scan-{assets}-{workers}")).await?;
            let seeding = Seeding { deployment, tenant: &tenant, assets: *assets, seed };
            let plural = if workers == 1 { "" } else { "s" };
            let what = format!("{} assets, {workers} worker{plural}", whole(number(*assets)));
            let run = measure_three_runs(&seeding, &what, &mut measurement, &mut rows).await?;
            last = Some(MeasuredOrganization { tenant, run, assets: *assets });
        }
    }
    measurement.rows(table(&rows), &rows)?;
    compare(&mut measurement, &rows);
    Ok((measurement, last.expect("there is a size")))
}

/// Measures the three runs of an organization, and returns the id of the last.
async fn measure_three_runs(
    seeding: &Seeding<'_>,
    what: &str,
    measurement: &mut Measurement,
    rows: &mut Vec<Row>,
) -> Result<String> {
    progress(&format!("scan: {what}: seeding"));
    seeding.fill().await?;
    let Seeding { deployment, tenant, .. } = seeding;
    let written = written(deployment).await?;
    progress(&format!("scan: {what}: running"));
    let (_, first) = measure_run(seeding, "first").await?;
    let expected = seeding.expected().await?;
    let in_operation = seeding.in_operation().await?;
    let sum = |of: fn(&super::seeded::Verdicts) -> i64| expected.iter().map(of).sum::<i64>();
    let failed = sum(|rule| rule.failed);
    for (name, found, expected) in [
        ("assets", first.counts.assets, in_operation),
        ("passed", first.counts.passed, sum(|rule| rule.passed)),
        ("failed", first.counts.failed, failed),
        ("not assessed", first.counts.not_assessed, sum(|rule| rule.not_assessed)),
        ("errors", first.counts.errors, 0),
        ("opened", first.counts.opened, failed),
        ("findings", deployment.count(tenant, LIVE).await?, failed),
        ("postures written", first.posture_rows, in_operation),
    ] {
        measurement.check(format!("{what}: first: {name}"), found, expected);
    }
    let found = seeding.found().await?;
    let same = expected.iter().filter(|rule| found.contains(rule)).count();
    measurement.check(
        format!("{what}: first: rules with the seeded counts"),
        i64::try_from(same)?,
        RULES,
    );
    let (_, again) = measure_run(seeding, "again").await?;
    let is_same = Counts { opened: 0, ..first.counts.clone() } == again.counts;
    measurement.check(
        format!("{what}: again: counts that differ from the first run"),
        i64::from(!is_same),
        0,
    );
    let rewritten = again.posture_rows + again.finding_rows;
    measurement.check(format!("{what}: again: rows written"), rewritten, 0);
    let (opened, fixed) = seeding.change().await?;
    deployment.stores.vacuum().await?;
    let (id, third) = measure_run(seeding, "1 %").await?;
    measurement.check(format!("{what}: 1 %: opened"), third.counts.opened, opened);
    measurement.check(format!("{what}: 1 %: fixed"), third.counts.fixed, fixed);
    measurement.check(format!("{what}: 1 %: postures written"), third.posture_rows, opened + fixed);
    // A run rewrites all findings of a changed asset, each exactly once.
    let expected = [failed + opened, third.finding_rows - opened, in_operation, opened + fixed];
    let written_rows = wait_for_statistics(deployment, written, expected).await?;
    for ((name, found), expected) in
        ["findings inserted", "findings updated", "postures inserted", "postures updated"]
            .iter()
            .zip(written_rows)
            .zip(expected)
    {
        measurement.check(format!("{what}: by statistics of Postgres: {name}"), found, expected);
    }
    rows.extend([first, again, third]);
    Ok(id)
}

async fn measure_run(seeding: &Seeding<'_>, run: &'static str) -> Result<(String, Row)> {
    let Seeding { deployment, tenant, assets, .. } = seeding;
    let observations: Vec<_> = deployment
        .workers
        .iter()
        .map(|worker| Observation::begin(worker.pid()))
        .collect::<Result<_>>()?;
    let wal = wal(deployment).await?;
    let postgres = usage::of_tree(deployment.stores.postgres)?;
    let mut started = Run::start(deployment, tenant).await?;
    let (counts, took) = started.wait(|_| Ok(())).await?;
    let postgres = usage::of_tree(deployment.stores.postgres)?.saturating_sub(postgres);
    let usages: Vec<_> = observations.iter().map(Observation::usage).collect::<Result<_>>()?;
    let row = Row {
        assets: *assets,
        workers: deployment.workers.len(),
        run,
        seconds: took.as_secs_f64(),
        counts,
        posture_rows: deployment.count(tenant, POSTURES).await?,
        finding_rows: deployment.count(tenant, FINDINGS).await?,
        wal_bytes: self::wal(deployment).await? - wal,
        peak_kib: usages.iter().map(|usage| usage.memory.rss_kib).collect(),
        worker_cpu_seconds: usages.iter().map(|usage| usage.cpu.as_secs_f64()).sum(),
        postgres_cpu_seconds: postgres.as_secs_f64(),
    };
    Ok((started.id, row))
}

async fn wal(deployment: &Deployment) -> Result<i64> {
    Ok(deployment.postgres.query_one(WAL, &[]).await?.try_get(0)?)
}

/// Returns the numbers of findings inserted, findings updated, postures inserted and postures updated.
async fn written(deployment: &Deployment) -> Result<[i64; 4]> {
    let mut written = [0; 4];
    for (row, pair) in
        deployment.postgres.query(WRITTEN, &[]).await?.iter().zip(written.chunks_mut(2))
    {
        pair.copy_from_slice(&[row.try_get("n_tup_ins")?, row.try_get("n_tup_upd")?]);
    }
    Ok(written)
}

/// Returns the numbers of rows written since `before`. Waits until the statistics of Postgres have reached the expected
/// numbers, or until the timeout.
async fn wait_for_statistics(
    deployment: &Deployment,
    before: [i64; 4],
    expected: [i64; 4],
) -> Result<[i64; 4]> {
    let began = Instant::now();
    loop {
        let mut since = written(deployment).await?;
        since.iter_mut().zip(before).for_each(|(now, before)| *now -= before);
        let is_all = since.iter().zip(expected).all(|(found, expected)| *found >= expected);
        if is_all || began.elapsed() > STATISTICS_WITHIN {
            return Ok(since);
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}

/// Adds the checks that compare the runs with each other.
fn compare(measurement: &mut Measurement, rows: &[Row]) {
    let of = |assets, workers, run| {
        rows.iter().find(|row| (row.assets, row.workers, row.run) == (assets, workers, run))
    };
    let differing = rows
        .iter()
        .filter(|row| of(row.assets, 1, row.run).is_none_or(|by_one| by_one.counts != row.counts));
    measurement.check(
        "runs with other counts by two workers than by one",
        i64::try_from(differing.count()).unwrap_or(i64::MAX),
        0,
    );
    let mut steep = 0;
    for pair in rows.iter().filter(|row| row.run == "first").collect::<Vec<_>>().windows(2) {
        let [small, large] = pair else { continue };
        if small.assets < LINEAR_FROM || large.assets <= small.assets {
            continue;
        }
        let each = |row: &Row| row.seconds / number(row.assets);
        let growth = each(large) / each(small);
        let what = format!(
            "workers: {}; time per asset with {} assets relative to {} assets",
            large.workers,
            whole(number(large.assets)),
            whole(number(small.assets))
        );
        measurement.figure_with_target(what, growth, "", "≤ 1.2");
        steep += i64::from(growth > LINEAR);
    }
    measurement.check("sizes at which the time grew faster than the number of assets", steep, 0);
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&[
        "assets",
        "workers",
        "run",
        "s",
        "assets/s",
        "verdicts/s",
        "postures",
        "findings",
        "WAL MiB",
        "peak MiB",
        "workers CPU s",
        "Postgres CPU s",
    ]);
    for row in rows {
        let each_second = |count: i64| whole(number(count) / row.seconds);
        let peaks = row.peak_kib.iter().map(|kib| format!("{:.0}", f64::from(*kib) / 1024.0));
        table.row([
            whole(number(row.assets)),
            row.workers.to_string(),
            row.run.to_owned(),
            format!("{:.2}", row.seconds),
            each_second(row.counts.assets),
            each_second(row.counts.assets * RULES),
            whole(number(row.posture_rows)),
            whole(number(row.finding_rows)),
            format!("{:.1}", number(row.wal_bytes >> 10) / 1024.0),
            peaks.collect::<Vec<_>>().join(", "),
            format!("{:.2}", row.worker_cpu_seconds),
            format!("{:.2}", row.postgres_cpu_seconds),
        ]);
    }
    table
}
