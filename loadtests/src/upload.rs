//! The upload of a file, and the import run that it starts, polled until the run has ended.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    client::Connection,
    deployment::{Deployment, Tenant},
    usage::{self, Observation, Usage},
};

/// Interval between two polls of an import run.
const POLL_EVERY: Duration = Duration::from_millis(50);
/// Timeout for a run without progress. The jobs of a killed worker are reaped (made claimable again) within 20 s, so a
/// run without progress for longer is stuck.
const STUCK_AFTER: Duration = Duration::from_mins(2);
const RUN: &str = "query($id: ID!) {
    importRun(id: $id) { state rows done created updated unchanged failed } }";
const ERRORS: &str = "query($id: ID!) {
    importRun(id: $id) { state errors(first: 5) { nodes { row column message } } } }";

/// Kind of the rows in a file to import.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// Rows that describe assets.
    Assets,
    /// Rows that describe dependencies between assets.
    Dependencies,
}

impl Kind {
    const fn path(self) -> &'static str {
        match self {
            Self::Assets => "/import/assets?format=csv&dryRun=false",
            Self::Dependencies => "/import/dependencies?format=csv&dryRun=false",
        }
    }
}

/// An import run as returned by the API; the counts are numbers of rows.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Run {
    /// State of the run; `SUCCEEDED` after a successful import.
    pub(crate) state: String,
    /// Number of rows in the file.
    pub(crate) rows: i64,
    /// Number of rows processed so far.
    pub(crate) done: i64,
    /// Rows that created an asset or dependency.
    pub(crate) created: i64,
    /// Rows that changed an existing asset or dependency.
    pub(crate) updated: i64,
    /// Rows that changed nothing, because the asset or dependency already had their values.
    pub(crate) unchanged: i64,
    /// Rows that were rejected as invalid.
    pub(crate) failed: i64,
}

/// An uploaded file and its import run.
pub(crate) struct Upload {
    id: String,
    began: Instant,
    /// Time from the first byte of the request to the response.
    pub(crate) took: Duration,
    connection: Connection,
}

/// Result and cost of a completed import.
pub(crate) struct Imported {
    /// Final state of the import run.
    pub(crate) run: Run,
    /// Time from the first byte of the request to the response.
    pub(crate) uploaded_in: Duration,
    /// Time from the first byte of the request to the end of the run.
    pub(crate) took: Duration,
    /// Memory and CPU time of the API process.
    pub(crate) api: Usage,
    /// Memory and CPU time of the worker process.
    pub(crate) worker: Usage,
    /// CPU time of all Postgres processes.
    pub(crate) postgres: Duration,
}

impl Upload {
    /// Uploads the file.
    ///
    /// # Errors
    /// Fails unless the response has status 202 and the id of a run.
    pub(crate) async fn send(
        deployment: &Deployment,
        tenant: &Tenant,
        kind: Kind,
        file: &Path,
    ) -> Result<Self> {
        let mut connection = Connection::open(deployment.api.address).await?;
        let began = Instant::now();
        let response = connection.send_file(kind.path(), &tenant.token, file).await?;
        let took = began.elapsed();
        let text = String::from_utf8_lossy(response.body).into_owned();
        ensure!(
            response.status == 202,
            "the upload was rejected with HTTP {}: {text}",
            response.status
        );
        let response: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        let id = response["id"]
            .as_str()
            .with_context(|| format!("the upload's response has no run id: {text}"))?;
        // The server may close the connection after a large body, so later requests use a new one.
        let connection = Connection::open(deployment.api.address).await?;
        Ok(Self { id: id.to_owned(), began, took, connection })
    }

    /// Returns the current state of the import run.
    pub(crate) async fn run(&mut self, tenant: &Tenant) -> Result<Run> {
        let variables = json!({ "id": self.id });
        let mut data = self.connection.graphql(Some(&tenant.token), RUN, variables).await?;
        let run = data["importRun"].take();
        serde_json::from_value(run.clone()).with_context(|| format!("parse the run {run}"))
    }

    /// Polls the run until it has ended. Returns its final state and the time since the upload began. Calls `on_poll`
    /// with the result of every poll.
    ///
    /// # Errors
    /// Fails if the run fails, a row is rejected, or the run makes no progress for two minutes.
    pub(crate) async fn wait_until_ended(
        &mut self,
        tenant: &Tenant,
        mut on_poll: impl FnMut(&Run) -> Result<()>,
    ) -> Result<(Run, Duration)> {
        let (mut last, mut progressed_at) = (None, Instant::now());
        loop {
            let run = self.run(tenant).await?;
            on_poll(&run)?;
            if !matches!(run.state.as_str(), "QUEUED" | "RUNNING") {
                let took = self.began.elapsed();
                ensure!(
                    run.state == "SUCCEEDED" && run.failed == 0,
                    "the import did not succeed: {run:?}: {}",
                    self.errors(tenant).await?
                );
                return Ok((run, took));
            }
            if last.as_ref() != Some(&run) {
                (last, progressed_at) = (Some(run), Instant::now());
            }
            ensure!(
                progressed_at.elapsed() < STUCK_AFTER,
                "the import has stopped making progress: {last:?}"
            );
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    async fn errors(&mut self, tenant: &Tenant) -> Result<String> {
        let variables = json!({ "id": self.id });
        let data = self.connection.graphql(Some(&tenant.token), ERRORS, variables).await?;
        Ok(data["importRun"]["errors"]["nodes"].to_string())
    }
}

/// Uploads a file, waits until the import has ended, and measures its cost.
///
/// # Errors
/// Fails if the deployment does not have exactly one worker, or the import fails.
pub(crate) async fn import(
    deployment: &Deployment,
    tenant: &Tenant,
    kind: Kind,
    file: &Path,
) -> Result<Imported> {
    let [worker] = &deployment.workers[..] else {
        bail!("the cost of an import can be measured with one worker only")
    };
    let (mut api, mut worker) =
        (Observation::begin(deployment.api.pid())?, Observation::begin(worker.pid())?);
    let before = usage::of_tree(deployment.stores.postgres)?;
    let mut sample = || api.sample().and_then(|()| worker.sample());
    let mut upload = {
        let sending = Upload::send(deployment, tenant, kind, file);
        tokio::pin!(sending);
        let mut interval = tokio::time::interval(POLL_EVERY);
        loop {
            tokio::select! {
                sent = &mut sending => break sent?,
                _ = interval.tick() => sample()?,
            }
        }
    };
    let (run, took) = upload.wait_until_ended(tenant, |_| sample()).await?;
    Ok(Imported {
        run,
        uploaded_in: upload.took,
        took,
        api: api.usage()?,
        worker: worker.usage()?,
        postgres: usage::of_tree(deployment.stores.postgres)?.saturating_sub(before),
    })
}
