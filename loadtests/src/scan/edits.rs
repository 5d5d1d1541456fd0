//! Single edits over the API, each followed until the asset's posture shows the verdict that it makes: while nothing else
//! happens, and while runs of all assets are under way.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{run::Run, sizes::Measured};
use crate::{
    client::Connection,
    deployment::Deployment,
    measurement::{Measurement, number},
    report::{progress, whole},
};

/// From one edit to the next.
const PACE: Duration = Duration::from_millis(100);
const ASK_EVERY: Duration = Duration::from_millis(10);
/// No verdict is that late.
const PATIENCE: Duration = Duration::from_mins(2);
const TARGET: &str = "≤ 1,000";
const RULE: &str = "disk-encryption";
const LIST: &str = "query($after: String) { assets(first: 100, after: $after, filter: { lifecycleState: [ACTIVE] }) {
    nodes { id attributes } pageInfo { hasNextPage endCursor } } }";
const EDIT: &str =
    "mutation($id: ID!, $to: JSON!) { updateAsset(id: $id, input: { attributes: $to }) { id } }";
const POSTURE: &str =
    "query($id: ID!) { asset(id: $id) { posture { verdicts { rule { key } verdict } } } }";

/// An asset whose disk is encrypted or not, and will be the other.
struct Edited {
    id: Value,
    is_encrypted: bool,
}

/// See the module.
pub(super) async fn run(
    deployment: &Deployment,
    measured: &Measured,
    edits: usize,
) -> Result<Measurement> {
    let mut measurement = Measurement::new(
        "edits",
        format!(
            "{edits} × updateAsset that turns disk_encrypted, one every {} ms, in an organization of {} assets; the verdict is asked for every \
             {} ms. All times are from sending the edit.",
            PACE.as_millis(),
            whole(number(measured.assets)),
            ASK_EVERY.as_millis()
        ),
    );
    let assets = assets(deployment, measured, edits * 2).await?;
    let (quiet, busy) = assets.split_at(edits);
    progress("scan: edits while it is quiet");
    paced(deployment, measured, quiet, &mut measurement, "quiet").await?;
    progress("scan: edits during runs");
    tokio::select! {
        edited = paced(deployment, measured, busy, &mut measurement, "during runs") => edited?,
        failed = run_again_and_again(deployment, measured) => match failed? {},
    }
    // Whichever is still open: what comes next begins alone.
    Run::start(deployment, &measured.tenant).await?.follow(|_| Ok(())).await?;
    Ok(measurement)
}

async fn run_again_and_again(deployment: &Deployment, measured: &Measured) -> Result<Infallible> {
    loop {
        Run::start(deployment, &measured.tenant).await?.follow(|_| Ok(())).await?;
    }
}

/// Assets in operation of which the fact is known.
async fn assets(deployment: &Deployment, measured: &Measured, count: usize) -> Result<Vec<Edited>> {
    let mut connection = Connection::open(deployment.api.address).await?;
    let (mut assets, mut after) = (Vec::with_capacity(count), Value::Null);
    loop {
        let given = json!({ "after": after });
        let page = connection.graphql(Some(&measured.tenant.token), LIST, given).await?;
        let page = &page["assets"];
        for node in page["nodes"].as_array().context("assets have nodes")? {
            let is_encrypted = node["attributes"]["disk_encrypted"].as_bool();
            assets.extend(
                is_encrypted.map(|is_encrypted| Edited { id: node["id"].clone(), is_encrypted }),
            );
            if assets.len() == count {
                return Ok(assets);
            }
        }
        ensure!(
            page["pageInfo"]["hasNextPage"] == json!(true),
            "there are fewer assets than edits"
        );
        after = page["pageInfo"]["endCursor"].clone();
    }
}

async fn paced(
    deployment: &Deployment,
    measured: &Measured,
    assets: &[Edited],
    measurement: &mut Measurement,
    when: &str,
) -> Result<()> {
    let mut pace = tokio::time::interval(PACE);
    let mut following = Vec::new();
    for Edited { id, is_encrypted } in assets {
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
    measurement.latencies(&format!("{when}: edit to answer"), answered, None);
    measurement.latencies(&format!("{when}: edit to verdict"), judged, Some((99, TARGET)));
    measurement.figure(format!("{when}: verdicts after more than 1 s"), number(late), "");
    Ok(())
}

/// Edits an asset; how long until the answer, and until the verdict.
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
        let verdicts = data["asset"]["posture"]["verdicts"].as_array().context("no posture")?;
        let verdict = verdicts.iter().find(|one| one["rule"]["key"] == json!(RULE));
        if verdict.is_some_and(|one| one["verdict"] == expected) {
            return Ok((answered, began.elapsed()));
        }
        ensure!(began.elapsed() < PATIENCE, "{id} is still {verdict:?} instead of {expected}");
        tokio::time::sleep(ASK_EVERY).await;
    }
}
