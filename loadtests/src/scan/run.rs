//! A compliance run, started and polled over GraphQL.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    client::Connection,
    deployment::{Deployment, Tenant},
};

/// Interval between two polls of a run.
const POLL_EVERY: Duration = Duration::from_millis(20);
/// Timeout for a run without progress. The jobs of a killed worker are reaped (made claimable again) within 20 s, so a
/// run without progress for longer is stuck.
const STUCK_AFTER: Duration = Duration::from_mins(2);
const START: &str = "mutation { startComplianceRun { id } }";
const RUN: &str = "query($id: ID!) { complianceRun(id: $id) {
    state reason shards shardsDone assets passed failed notAssessed errors opened fixed } }";

/// Counts of a run's verdicts and findings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all(deserialize = "camelCase"))]
pub(super) struct Counts {
    pub(super) assets: i64,
    pub(super) passed: i64,
    pub(super) failed: i64,
    pub(super) not_assessed: i64,
    pub(super) errors: i64,
    pub(super) opened: i64,
    pub(super) fixed: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RunView {
    state: String,
    reason: Option<String>,
    shards: i64,
    shards_done: i64,
    #[serde(flatten)]
    counts: Counts,
}

/// A compliance run that has been started.
pub(super) struct Run {
    /// The run's id, as returned by the API.
    pub(super) id: String,
    connection: Connection,
    token: String,
    began: Instant,
}

impl Run {
    /// Starts a run of all assets.
    pub(super) async fn start(deployment: &Deployment, tenant: &Tenant) -> Result<Self> {
        let mut connection = Connection::open(deployment.api.address).await?;
        let (token, began) = (tenant.token.clone(), Instant::now());
        let data = connection.graphql(Some(&token), START, Value::Null).await?;
        let id = data["startComplianceRun"]["id"].as_str().context("the response has no run id")?;
        Ok(Self { id: id.to_owned(), connection, token, began })
    }

    /// Polls the run until it has succeeded. Returns its counts and the time since its start. Calls `on_poll` with the
    /// elapsed time after every poll of the unfinished run.
    ///
    /// # Errors
    /// Fails if the run fails or makes no progress for two minutes.
    pub(super) async fn wait(
        &mut self,
        mut on_poll: impl FnMut(Duration) -> Result<()>,
    ) -> Result<(Counts, Duration)> {
        let (mut last, mut progressed_at) = (None, Instant::now());
        loop {
            let run = self.poll().await?;
            let elapsed = self.began.elapsed();
            if !matches!(run.state.as_str(), "QUEUED" | "RUNNING") {
                ensure!(run.state == "SUCCEEDED", "the run did not succeed: {run:?}");
                return Ok((run.counts, elapsed));
            }
            on_poll(elapsed)?;
            if last.as_ref() != Some(&run) {
                (last, progressed_at) = (Some(run), Instant::now());
            }
            ensure!(
                progressed_at.elapsed() < STUCK_AFTER,
                "the run has stopped making progress: {last:?}"
            );
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    async fn poll(&mut self) -> Result<RunView> {
        let given = json!({ "id": self.id });
        let mut data = self.connection.graphql(Some(&self.token), RUN, given).await?;
        let run = data["complianceRun"].take();
        serde_json::from_value(run.clone()).with_context(|| format!("parse the run {run}"))
    }
}
