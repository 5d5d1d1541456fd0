//! A compliance run, started and followed over HTTP as its users do it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    client::Connection,
    deployment::{Deployment, Tenant},
};

/// A run is asked about so often.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// A run that has not moved for so long is stuck: what died with a worker is taken back within 20 s.
const STUCK_AFTER: Duration = Duration::from_mins(2);
const START: &str = "mutation { startComplianceRun { id } }";
const RUN: &str = "query($id: ID!) { complianceRun(id: $id) {
    state reason shards shardsDone assets passed failed notAssessed errors opened fixed } }";

/// What a run found.
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
struct Told {
    state: String,
    reason: Option<String>,
    shards: i64,
    shards_done: i64,
    #[serde(flatten)]
    counts: Counts,
}

/// A run that has been started.
pub(super) struct Run {
    /// Its id.
    pub(super) id: String,
    connection: Connection,
    token: String,
    began: Instant,
}

impl Run {
    /// Starts one of all assets.
    pub(super) async fn start(deployment: &Deployment, tenant: &Tenant) -> Result<Self> {
        let mut connection = Connection::open(deployment.api.address).await?;
        let (token, began) = (tenant.token.clone(), Instant::now());
        let data = connection.graphql(Some(&token), START, Value::Null).await?;
        let id = data["startComplianceRun"]["id"].as_str().context("the run has no id")?;
        Ok(Self { id: id.to_owned(), connection, token, began })
    }

    /// Follows it to its end, and says how long it took from the start; `look` is called each time it is asked about.
    ///
    /// # Errors
    /// A run that fails or does not move any more.
    pub(super) async fn follow(
        &mut self,
        mut look: impl FnMut(Duration) -> Result<()>,
    ) -> Result<(Counts, Duration)> {
        let (mut last, mut moved) = (None, Instant::now());
        loop {
            let run = self.ask().await?;
            let elapsed = self.began.elapsed();
            if !matches!(run.state.as_str(), "QUEUED" | "RUNNING") {
                ensure!(run.state == "SUCCEEDED", "the run has ended as {run:?}");
                return Ok((run.counts, elapsed));
            }
            look(elapsed)?;
            if last.as_ref() != Some(&run) {
                (last, moved) = (Some(run), Instant::now());
            }
            ensure!(moved.elapsed() < STUCK_AFTER, "the run stands still: {last:?}");
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    async fn ask(&mut self) -> Result<Told> {
        let given = json!({ "id": self.id });
        let mut data = self.connection.graphql(Some(&self.token), RUN, given).await?;
        let run = data["complianceRun"].take();
        serde_json::from_value(run.clone()).with_context(|| format!("understand the run {run}"))
    }
}
