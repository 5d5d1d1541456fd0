//! Work that the older version leaves behind: an import and a compliance run on their way, and the jobs stored for them.

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

const ASK_EVERY: Duration = Duration::from_millis(20);
/// More than what died with its worker needs to be taken back.
const STUCK_AFTER: Duration = Duration::from_mins(3);
const START: &str = "mutation { startComplianceRun { id } }";
const IMPORT: &str =
    "query($id: ID!) { run: importRun(id: $id) { state rows done created failed } }";
const RUN: &str = "query($id: ID!) { run: complianceRun(id: $id) { state shards shardsDone } }";
const JOBS: &str = "{ jobs(filter: { state: [WAITING, RUNNING] }, first: 100) { nodes { id } } }";
const JOB: &str = "query($id: ID!) { job(id: $id) { state } }";

/// See the module.
pub(super) struct Left {
    import: String,
    run: String,
    /// Ids of jobs that waited or ran at the last look before the end.
    jobs: Vec<String>,
}

/// Imports a file to its end.
pub(super) async fn import_whole(address: SocketAddr, token: &str, file: &Path) -> Result<()> {
    let id = upload(address, token, file).await?;
    until_ended(address, token, IMPORT, &id).await.map(drop)
}

/// Starts a compliance run and waits for its end.
pub(super) async fn run_whole(address: SocketAddr, token: &str) -> Result<()> {
    let id = start(address, token).await?;
    until_ended(address, token, RUN, &id).await.map(drop)
}

impl Left {
    /// Begins both, and returns as soon as the import has moved.
    pub(super) async fn leave(address: SocketAddr, token: &str, file: &Path) -> Result<Self> {
        let import = upload(address, token, file).await?;
        let run = start(address, token).await?;
        let mut connection = Connection::open(address).await?;
        let began = Instant::now();
        while ask(&mut connection, token, IMPORT, &import).await?["done"] == json!(0) {
            ensure!(began.elapsed() < STUCK_AFTER, "the import does not begin");
            tokio::time::sleep(ASK_EVERY).await;
        }
        let data = connection.graphql(Some(token), JOBS, Value::Null).await?;
        let jobs = data["jobs"]["nodes"].as_array().context("there are no jobs")?;
        let jobs = jobs.iter().filter_map(|job| job["id"].as_str().map(ToOwned::to_owned));
        Ok(Self { import, run, jobs: jobs.collect() })
    }

    /// Follows both to their ends on the newer version; the rows that the import created.
    pub(super) async fn check(
        &self,
        address: SocketAddr,
        token: &str,
        measurement: &mut Measurement,
    ) -> Result<i64> {
        let began = Instant::now();
        let mut connection = Connection::open(address).await?;
        let found = ask(&mut connection, token, IMPORT, &self.import).await?;
        let of = |run: &Value, what: &str| run[what].as_i64().unwrap_or(-1);
        measurement.check("import was left unfinished", i64::from(is_open(&found)), 1);
        let remaining = of(&found, "rows") - of(&found, "done");
        measurement.figure("rows left to the newer version", number(remaining), "");
        let import = until_ended(address, token, IMPORT, &self.import).await?;
        let run = until_ended(address, token, RUN, &self.run).await?;
        measurement.check(
            "compliance run left behind: shards done",
            of(&run, "shardsDone"),
            of(&run, "shards"),
        );
        let mut undone = 0;
        for job in &self.jobs {
            undone += i64::from(!is_done(&mut connection, token, job).await?);
        }
        measurement.figure("until all of it was done", began.elapsed().as_secs_f64(), "s");
        measurement.figure("jobs that waited or ran at the stop", number(self.jobs.len()), "");
        measurement.check("of these not done", undone, 0);
        measurement.check("import left behind: rows failed", of(&import, "failed"), 0);
        measurement.check(
            "import left behind: rows done",
            of(&import, "done"),
            of(&import, "rows"),
        );
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
        tokio::time::sleep(ASK_EVERY).await;
    }
}

async fn upload(address: SocketAddr, token: &str, file: &Path) -> Result<String> {
    let mut connection = Connection::open(address).await?;
    let path = "/import/assets?format=csv&dryRun=false";
    let answer = connection.send_file(path, token, file).await?;
    let text = String::from_utf8_lossy(answer.body).into_owned();
    ensure!(answer.status == 202, "HTTP {} to an upload: {text}", answer.status);
    let answer: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    Ok(answer["id"].as_str().with_context(|| format!("no id of the run: {text}"))?.to_owned())
}

async fn start(address: SocketAddr, token: &str) -> Result<String> {
    let mut connection = Connection::open(address).await?;
    let data = connection.graphql(Some(token), START, Value::Null).await?;
    Ok(data["startComplianceRun"]["id"].as_str().context("the run has no id")?.to_owned())
}

async fn ask(connection: &mut Connection, token: &str, query: &str, id: &str) -> Result<Value> {
    Ok(connection.graphql(Some(token), query, json!({ "id": id })).await?["run"].take())
}

fn is_open(run: &Value) -> bool {
    matches!(run["state"].as_str(), Some("QUEUED" | "RUNNING"))
}

/// The run once it has succeeded.
async fn until_ended(address: SocketAddr, token: &str, query: &str, id: &str) -> Result<Value> {
    let mut connection = Connection::open(address).await?;
    let (mut last, mut moved) = (Value::Null, Instant::now());
    loop {
        let run = ask(&mut connection, token, query, id).await?;
        if !is_open(&run) {
            ensure!(run["state"] == json!("SUCCEEDED"), "it has ended as {run}");
            return Ok(run);
        }
        if last != run {
            (last, moved) = (run, Instant::now());
        }
        ensure!(moved.elapsed() < STUCK_AFTER, "it stands still: {last}");
        tokio::time::sleep(ASK_EVERY).await;
    }
}
