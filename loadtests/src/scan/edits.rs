//! The part `edits`: single edits over the API, without load and during compliance runs of all assets. After each edit,
//! the asset's posture (all its verdicts) is polled until it has the new verdict.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{run::Run, sizes::MeasuredOrganization};
use crate::{
    client::Connection,
    deployment::Deployment,
    measurement::{Measurement, number},
    report::{progress, whole},
};

/// Interval between two edits.
const EDIT_INTERVAL: Duration = Duration::from_millis(100);
const POLL_EVERY: Duration = Duration::from_millis(10);
/// Timeout for the verdict of an edit.
const VERDICT_TIMEOUT: Duration = Duration::from_mins(2);
const TARGET: &str = "≤ 1,000";
const RULE: &str = "disk-encryption";
const LIST: &str = "query($after: String) { assets(first: 100, after: $after, filter: { lifecycleState: [ACTIVE] }) {
    nodes { id attributes } pageInfo { hasNextPage endCursor } } }";
const EDIT: &str =
    "mutation($id: ID!, $to: JSON!) { updateAsset(id: $id, input: { attributes: $to }) { id } }";
const POSTURE: &str =
    "query($id: ID!) { asset(id: $id) { posture { verdicts { rule { key } verdict } } } }";

/// An edit: the asset, and the current value of `disk_encrypted`, which the edit inverts.
struct Edit {
    id: Value,
    is_encrypted: bool,
}

/// Runs the part: edits without load, then edits during compliance runs.
pub(super) async fn run(
    deployment: &Deployment,
    measured: &MeasuredOrganization,
    edits: usize,
) -> Result<Measurement> {
    let mut measurement = Measurement::new(
        "edits",
        format!(
            "{edits} × updateAsset that inverts disk_encrypted, one every {} ms, in an organization of {} assets. The verdict is polled every \
             {} ms. All times begin when the edit is sent.",
            EDIT_INTERVAL.as_millis(),
            whole(number(measured.assets)),
            POLL_EVERY.as_millis()
        ),
    );
    let assets = assets(deployment, measured, edits * 2).await?;
    let (quiet, busy) = assets.split_at(edits);
    progress("scan: edits without load");
    measure_edits(deployment, measured, quiet, &mut measurement, "without load").await?;
    progress("scan: edits during runs");
    tokio::select! {
        edited = measure_edits(deployment, measured, busy, &mut measurement, "during runs") => edited?,
        failed = run_repeatedly(deployment, measured) => match failed? {},
    }
    // Waits for the run that may be in progress, so that the next part starts without load.
    Run::start(deployment, &measured.tenant).await?.wait(|_| Ok(())).await?;
    Ok(measurement)
}

async fn run_repeatedly(
    deployment: &Deployment,
    measured: &MeasuredOrganization,
) -> Result<Infallible> {
    loop {
        Run::start(deployment, &measured.tenant).await?.wait(|_| Ok(())).await?;
    }
}

/// Returns active assets that have the fact `disk_encrypted`.
async fn assets(
    deployment: &Deployment,
    measured: &MeasuredOrganization,
    count: usize,
) -> Result<Vec<Edit>> {
    let mut connection = Connection::open(deployment.api.address).await?;
    let (mut assets, mut after) = (Vec::with_capacity(count), Value::Null);
    loop {
        let given = json!({ "after": after });
        let page = connection.graphql(Some(&measured.tenant.token), LIST, given).await?;
        let page = &page["assets"];
        for node in page["nodes"].as_array().context("the response has no asset nodes")? {
            let is_encrypted = node["attributes"]["disk_encrypted"].as_bool();
            assets.extend(
                is_encrypted.map(|is_encrypted| Edit { id: node["id"].clone(), is_encrypted }),
            );
            if assets.len() == count {
                return Ok(assets);
            }
        }
        ensure!(
            page["pageInfo"]["hasNextPage"] == json!(true),
            "there are fewer assets with disk_encrypted set than edits"
        );
        after = page["pageInfo"]["endCursor"].clone();
    }
}

async fn measure_edits(
    deployment: &Deployment,
    measured: &MeasuredOrganization,
    assets: &[Edit],
    measurement: &mut Measurement,
    when: &str,
) -> Result<()> {
    let mut interval = tokio::time::interval(EDIT_INTERVAL);
    let mut tasks = Vec::new();
    for Edit { id, is_encrypted } in assets {
        interval.tick().await;
        let connection = Connection::open(deployment.api.address).await?;
        let (token, id) = (measured.tenant.token.clone(), id.clone());
        tasks.push(tokio::spawn(edit_and_wait(connection, token, id, !is_encrypted)));
    }
    let (mut answered, mut verdict_times) = (Vec::new(), Vec::new());
    for task in tasks {
        let (answer, verdict) = task.await??;
        answered.push(answer);
        verdict_times.push(verdict);
    }
    let late = verdict_times.iter().filter(|took| **took > Duration::from_secs(1)).count();
    measurement.latencies(&format!("{when}: edit to response"), answered, None);
    measurement.latencies(&format!("{when}: edit to verdict"), verdict_times, Some((99, TARGET)));
    measurement.figure(format!("{when}: verdicts later than 1 s"), number(late), "");
    Ok(())
}

/// Edits an asset, and returns the times until the response and until the new verdict.
async fn edit_and_wait(
    mut connection: Connection,
    token: String,
    id: Value,
    is_encrypted: bool,
) -> Result<(Duration, Duration)> {
    let expected = json!(if is_encrypted { "PASS" } else { "FAIL" });
    let began = Instant::now();
    let given = json!({ "id": id, "to": { "disk_encrypted": is_encrypted } });
    connection.graphql(Some(&token), EDIT, given).await?;
    let answered = began.elapsed();
    loop {
        let data = connection.graphql(Some(&token), POSTURE, json!({ "id": id })).await?;
        let verdicts = data["asset"]["posture"]["verdicts"]
            .as_array()
            .context("the response has no posture")?;
        let verdict = verdicts.iter().find(|verdict| verdict["rule"]["key"] == json!(RULE));
        if verdict.is_some_and(|verdict| verdict["verdict"] == expected) {
            return Ok((answered, began.elapsed()));
        }
        ensure!(
            began.elapsed() < VERDICT_TIMEOUT,
            "the verdict of {id} is still {verdict:?}, expected {expected}"
        );
        tokio::time::sleep(POLL_EVERY).await;
    }
}
