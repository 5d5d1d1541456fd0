//! The part `runs`: compliance runs are started over the API while `sentryops worker` processes are killed at random
//! times.

use std::{collections::HashSet, time::Duration};

use anyhow::{Context, Result};
use serde_json::json;

use super::{
    bench::{QueueBench, stop},
    kill::KilledWorkers,
    ledger,
};
use crate::{
    client::Connection,
    measurement::Measurement,
    random::Random,
    report::progress,
    seed::{self, ORGANIZATION},
    server::Server,
};

const PROCESSES: usize = 3;
const ASSETS: u32 = 20_000;
/// Range of the interval between two kills. The job of a shard is buried (dead-lettered) after its worker was killed
/// five times, so shorter intervals would bury jobs.
const KILL_INTERVAL: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(3));
const COMPLETION_TIMEOUT: Duration = Duration::from_mins(10);
const START: &str = "mutation($key: String!) { startComplianceRun(idempotencyKey: $key) { id } }";
/// Query for the number of compliance runs of this part. The demo's own runs have a single shard and are not counted.
const RUNS: &str = "SELECT count(*) FROM compliance_run WHERE shards > 1";
/// Query for the number of compliance runs with wrong counts. The assets do not change, so every run must have one
/// verdict for each rule and asset in operation.
const WRONG_COUNTS: &str = "SELECT count(*) FROM compliance_run AS run
    WHERE shards > 1 AND (shards_done <> shards OR errors <> 0
        OR passed + failed + waived + not_assessed <> assets * (SELECT count(*) FROM rule WHERE rule.org_id = run.org_id)
        OR assets <> (SELECT count(*) FROM asset
                      WHERE asset.org_id = run.org_id AND lifecycle_state NOT IN ('RETIRED', 'DISPOSED')))";
const DIFFERENT_RESULTS: &str = "SELECT count(DISTINCT (passed, failed, waived, not_assessed)) - 1 FROM compliance_run WHERE shards > 1";
const POSTURES: &str = "SELECT count(*) FROM asset JOIN rule ON rule.org_id = asset.org_id AND key = 'disk-encryption'
    LEFT JOIN posture ON posture.org_id = asset.org_id AND posture.asset_id = asset.id
    WHERE lifecycle_state NOT IN ('RETIRED', 'DISPOSED') AND substr(verdicts, slot + 1, 1) IS DISTINCT FROM
        CASE attributes->'disk_encrypted' WHEN 'true' THEN 'P' WHEN 'false' THEN 'F' ELSE 'N' END";

/// Runs the part: kills workers during compliance runs.
pub(crate) async fn run(bench: &QueueBench) -> Result<Measurement> {
    let kills = bench.either(60, 6);
    let mut random = Random::new(bench.seed);
    let mut measurement = Measurement::new(
        "runs",
        format!(
            "{kills} times, one of {PROCESSES} `sentryops worker` processes is killed (SIGKILL), {} to {} ms apart, and replaced immediately. A compliance run of \
             {ASSETS} assets is started over the API between two kills, unless one is in progress; seed {}.",
            KILL_INTERVAL.0.as_millis(),
            KILL_INTERVAL.1.as_millis(),
            bench.seed
        ),
    );
    bench.ledger.clear().await?;
    let (api, token) = prepare(bench).await?;
    let mut connection = Connection::open(api.address).await?;
    bench.ledger.start_recording().await?;
    let mut fleet = Vec::new();
    for _ in 0..PROCESSES {
        fleet.push(bench.serve("scan").await?);
    }
    let (mut killed, mut started) = (KilledWorkers::default(), HashSet::new());
    for kill in 1..=kills {
        let key = json!({ "key": format!("{}-{kill}", bench.seed) });
        let run = connection.graphql(Some(&token), START, key).await?;
        started.insert(run["startComplianceRun"]["id"].to_string());
        tokio::time::sleep(random.between(KILL_INTERVAL.0, KILL_INTERVAL.1)).await;
        let victim = fleet.swap_remove(random.below(fleet.len()));
        killed.kill(&bench.ledger, victim).await?;
        fleet.push(bench.serve("scan").await?);
        if kill % 20 == 0 {
            progress(&format!("queue: {kill} of {kills} kills done"));
        }
    }
    bench.ledger.wait(ledger::LIVE, COMPLETION_TIMEOUT).await?;
    stop(fleet).await?;
    api.stop().await?;
    let count = |sql: &'static str| bench.ledger.count(sql);
    let runs = i64::try_from(started.len())?;
    measurement.check("runs", count(RUNS).await?, runs);
    let done = "SELECT count(*) FROM compliance_run WHERE shards > 1 AND state = 'SUCCEEDED'";
    measurement.check("runs that succeeded", count(done).await?, runs);
    measurement.check(
        "runs that did not evaluate every rule for every asset exactly once",
        count(WRONG_COUNTS).await?,
        0,
    );
    measurement.check("distinct run results beyond the first", count(DIFFERENT_RESULTS).await?, 0);
    measurement.check("postures that differ from the reference query", count(POSTURES).await?, 0);
    let buried = "SELECT count(*) FROM job WHERE state = 'BURIED'";
    measurement.check("shards buried", count(buried).await?, 0);
    let shards =
        count("SELECT coalesce(sum(shards), 0) FROM compliance_run WHERE shards > 1").await?;
    bench.ledger.audit(&mut measurement, shards).await?;
    killed.takeovers(&bench.ledger, &mut measurement, "").await?;
    Ok(measurement)
}

/// Starts and stops the demo, so that its assets are evaluated. Then inserts more assets, and starts an API process
/// without workers.
async fn prepare(bench: &QueueBench) -> Result<(Server, String)> {
    let server = Server::up(&bench.binary, bench.folder.path(), Some(&bench.stores)).await?;
    let token = seed::sign_in(&server).await.context("sign in")?;
    server.stop().await?;
    bench
        .ledger
        .execute(&format!(
            "INSERT INTO asset (org_id, id, code, name, type, lifecycle_state, environment, attributes, created_at, updated_at)
             SELECT id, gen_random_uuid(), 'LOAD-' || number, 'load-' || number, 'HOST', 'ACTIVE', 'PROD',
                    CASE number % 3 WHEN 0 THEN '{{}}' ELSE jsonb_build_object('disk_encrypted', number % 3 = 1) END,
                    now(), now()
             FROM organization, generate_series(1, {ASSETS}) AS number WHERE organization.name = '{ORGANIZATION}'"
        ))
        .await?;
    bench.ledger.execute("ANALYZE asset").await?;
    let api =
        Server::api(&bench.binary, bench.folder.path(), &bench.stores, &bench.stores.database);
    Ok((api.await?, token))
}
