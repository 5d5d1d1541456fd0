//! Unfinished work of the older version: an import and a compliance run in progress, and their stored jobs.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    client::Connection,
    measurement::{Measurement, number},
};

const POLL_EVERY: Duration = Duration::from_millis(20);
/// Timeout for a run without progress, longer than it takes to reap the jobs of a killed worker (to make them claimable
/// again).
const STUCK_AFTER: Duration = Duration::from_mins(3);
const START: &str = "mutation { startComplianceRun { id } }";
const IMPORT: &str =
    "query($id: ID!) { run: importRun(id: $id) { state rows done created failed } }";
const RUN: &str = "query($id: ID!) { run: complianceRun(id: $id) { state shards shardsDone } }";
const JOBS: &str = "{ jobs(filter: { state: [WAITING, RUNNING] }, first: 100) { nodes { id } } }";
const JOB: &str = "query($id: ID!) { job(id: $id) { state } }";

/// Ids of the runs and jobs that the older version leaves unfinished.
pub(super) struct UnfinishedWork {
    import: String,
    run: String,
    /// Ids of the jobs that were waiting or running shortly before the stop, at most 100.
    jobs: Vec<String>,
}

/// Imports a file and waits until the import has succeeded.
pub(super) async fn import_whole(address: SocketAddr, token: &str, file: &Path) -> Result<()> {
    let id = upload(address, token, file).await?;
    until_ended(address, token, IMPORT, &id).await.map(drop)
}

/// Starts a compliance run and waits until it has succeeded.
pub(super) async fn run_whole(address: SocketAddr, token: &str) -> Result<()> {
    let id = start_run(address, token).await?;
    until_ended(address, token, RUN, &id).await.map(drop)
}

impl UnfinishedWork {
    /// Starts an import and a compliance run, and returns as soon as the import has made progress.
    pub(super) async fn start(address: SocketAddr, token: &str, file: &Path) -> Result<Self> {
        let import = upload(address, token, file).await?;
        let run = start_run(address, token).await?;
        let mut connection = Connection::open(address).await?;
        let began = Instant::now();
        while poll(&mut connection, token, IMPORT, &import).await?["done"] == json!(0) {
            ensure!(began.elapsed() < STUCK_AFTER, "the import made no progress");
            tokio::time::sleep(POLL_EVERY).await;
        }
        let data = connection.graphql(Some(token), JOBS, Value::Null).await?;
        let jobs = data["jobs"]["nodes"].as_array().context("the response has no jobs")?;
        let jobs = jobs.iter().filter_map(|job| job["id"].as_str().map(ToOwned::to_owned));
        Ok(Self { import, run, jobs: jobs.collect() })
    }

    /// Waits until the newer version has completed the import and the compliance run, and adds the checks. Returns the
    /// number of rows that the import created.
    ///
    /// # Errors
    /// Fails if the import or the run does not succeed, or makes no progress for three minutes.
    pub(super) async fn check(
        &self,
        address: SocketAddr,
        token: &str,
        measurement: &mut Measurement,
    ) -> Result<i64> {
        let began = Instant::now();
        let mut connection = Connection::open(address).await?;
        let found = poll(&mut connection, token, IMPORT, &self.import).await?;
        let of = |run: &Value, what: &str| run[what].as_i64().unwrap_or(-1);
        measurement.check(
            "import unfinished when the older version stopped",
            i64::from(is_unfinished(&found)),
            1,
        );
        let remaining = of(&found, "rows") - of(&found, "done");
        measurement.figure("rows left to the newer version", number(remaining), "");
        let import = until_ended(address, token, IMPORT, &self.import).await?;
        let run = until_ended(address, token, RUN, &self.run).await?;
        measurement.check(
            "unfinished compliance run: shards done",
            of(&run, "shardsDone"),
            of(&run, "shards"),
        );
        let mut undone = 0;
        for job in &self.jobs {
            undone += i64::from(!is_done(&mut connection, token, job).await?);
        }
        measurement.figure("time until all work was done", began.elapsed().as_secs_f64(), "s");
        measurement.figure("jobs waiting or running at the stop", number(self.jobs.len()), "");
        measurement.check("jobs waiting or running at the stop that did not succeed", undone, 0);
        measurement.check("unfinished import: rows failed", of(&import, "failed"), 0);
        measurement.check("unfinished import: rows done", of(&import, "done"), of(&import, "rows"));
        Ok(of(&import, "created"))
    }
}

async fn is_done(connection: &mut Connection, token: &str, id: &str) -> Result<bool> {
    let began = Instant::now();
    loop {
        let data = connection.graphql(Some(token), JOB, json!({ "id": id })).await?;
        match data["job"]["state"].as_str() {
            Some("SUCCEEDED") => return Ok(true),
            Some("WAITING" | "RUNNING" | "SCHEDULED") if began.elapsed() < STUCK_AFTER => {}
            _ => return Ok(false),
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}

async fn upload(address: SocketAddr, token: &str, file: &Path) -> Result<String> {
    let mut connection = Connection::open(address).await?;
    let path = "/import/assets?format=csv&dryRun=false";
    let response = connection.send_file(path, token, file).await?;
    let text = String::from_utf8_lossy(response.body).into_owned();
    ensure!(
        response.status == 202,
        "the upload was rejected with HTTP {}: {text}",
        response.status
    );
    let response: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    Ok(response["id"]
        .as_str()
        .with_context(|| format!("the upload's response has no run id: {text}"))?
        .to_owned())
}

async fn start_run(address: SocketAddr, token: &str) -> Result<String> {
    let mut connection = Connection::open(address).await?;
    let data = connection.graphql(Some(token), START, Value::Null).await?;
    Ok(data["startComplianceRun"]["id"].as_str().context("the response has no run id")?.to_owned())
}

async fn poll(connection: &mut Connection, token: &str, query: &str, id: &str) -> Result<Value> {
    Ok(connection.graphql(Some(token), query, json!({ "id": id })).await?["run"].take())
}

fn is_unfinished(run: &Value) -> bool {
    matches!(run["state"].as_str(), Some("QUEUED" | "RUNNING"))
}

/// Polls a run until it has succeeded, and returns it.
///
/// # Errors
/// Fails if the run ends in another state or makes no progress for three minutes.
async fn until_ended(address: SocketAddr, token: &str, query: &str, id: &str) -> Result<Value> {
    let mut connection = Connection::open(address).await?;
    let (mut last, mut progressed_at) = (Value::Null, Instant::now());
    loop {
        let run = poll(&mut connection, token, query, id).await?;
        if !is_unfinished(&run) {
            ensure!(run["state"] == json!("SUCCEEDED"), "the run did not succeed: {run}");
            return Ok(run);
        }
        if last != run {
            (last, progressed_at) = (run, Instant::now());
        }
        ensure!(
            progressed_at.elapsed() < STUCK_AFTER,
            "the run has stopped making progress: {last}"
        );
        tokio::time::sleep(POLL_EVERY).await;
    }
}
