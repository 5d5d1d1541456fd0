//! Single edits over the API, each polled until the asset's posture shows the new verdict: without load, and during
//! runs of all assets.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{run::Run, sizes::LoadFigures};
use crate::{
    client::Connection,
    deployment::Deployment,
    measurement::{Measurement, number},
    report::{progress, whole},
};

/// Interval between two edits.
const PACE: Duration = Duration::from_millis(100);
const ASK_EVERY: Duration = Duration::from_millis(10);
/// Timeout for the verdict of an edit.
const PATIENCE: Duration = Duration::from_mins(2);
const TARGET: &str = "≤ 1,000";
const RULE: &str = "disk-encryption";
const LIST: &str = "query($after: String) { assets(first: 100, after: $after, filter: { lifecycleState: [ACTIVE] }) {
    nodes { id attributes } pageInfo { hasNextPage endCursor } } }";
const EDIT: &str =
    "mutation($id: ID!, $to: JSON!) { updateAsset(id: $id, input: { attributes: $to }) { id } }";
const POSTURE: &str =
    "query($id: ID!) { asset(id: $id) { posture { verdicts { rule { key } verdict } } } }";

/// An asset and its current disk encryption, which the edit inverts.
struct Edit {
    id: Value,
    is_encrypted: bool,
}

/// Runs the edits part, first without load, then during compliance runs.
pub(super) async fn run(
    deployment: &Deployment,
    measured: &LoadFigures,
    edits: usize,
) -> Result<Measurement> {
    let mut measurement = Measurement::new(
        "edits",
        format!(
            "{edits} × updateAsset that inverts disk_encrypted, one every {} ms, in an organization of {} assets. The verdict is polled every \
             {} ms. All times begin when the edit is sent.",
            PACE.as_millis(),
            whole(number(measured.assets)),
            ASK_EVERY.as_millis()
        ),
    );
    let assets = assets(deployment, measured, edits * 2).await?;
    let (quiet, busy) = assets.split_at(edits);
    progress("scan: edits without load");
    paced(deployment, measured, quiet, &mut measurement, "without load").await?;
    progress("scan: edits during runs");
    tokio::select! {
        edited = paced(deployment, measured, busy, &mut measurement, "during runs") => edited?,
        failed = run_again_and_again(deployment, measured) => match failed? {},
    }
    // Waits for a run still in progress, so that the next part starts without load.
    Run::start(deployment, &measured.tenant).await?.follow(|_| Ok(())).await?;
    Ok(measurement)
}

async fn run_again_and_again(
    deployment: &Deployment,
    measured: &LoadFigures,
) -> Result<Infallible> {
    loop {
        Run::start(deployment, &measured.tenant).await?.follow(|_| Ok(())).await?;
    }
}

/// Returns assets in operation that have the fact set.
async fn assets(
    deployment: &Deployment,
    measured: &LoadFigures,
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

async fn paced(
    deployment: &Deployment,
    measured: &LoadFigures,
    assets: &[Edit],
    measurement: &mut Measurement,
    when: &str,
) -> Result<()> {
    let mut pace = tokio::time::interval(PACE);
    let mut following = Vec::new();
    for Edit { id, is_encrypted } in assets {
        pace.tick().await;
        let connection = Connection::open(deployment.api.address).await?;
        let (token, id) = (measured.tenant.token.clone(), id.clone());
        following.push(tokio::spawn(follow(connection, token, id, !is_encrypted)));
    }
    let (mut answered, mut judged) = (Vec::new(), Vec::new());
    for followed in following {
        let (answer, verdict) = followed.await??;
        answered.push(answer);
        judged.push(verdict);
    }
    let late = judged.iter().filter(|took| **took > Duration::from_secs(1)).count();
    measurement.latencies(&format!("{when}: edit to response"), answered, None);
    measurement.latencies(&format!("{when}: edit to verdict"), judged, Some((99, TARGET)));
    measurement.figure(format!("{when}: verdicts later than 1 s"), number(late), "");
    Ok(())
}

/// Edits an asset, and returns the times until the response and until the new verdict.
async fn follow(
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
        let verdict = verdicts.iter().find(|one| one["rule"]["key"] == json!(RULE));
        if verdict.is_some_and(|one| one["verdict"] == expected) {
            return Ok((answered, began.elapsed()));
        }
        ensure!(
            began.elapsed() < PATIENCE,
            "the verdict of {id} is still {verdict:?}, expected {expected}"
        );
        tokio::time::sleep(ASK_EVERY).await;
    }
}
