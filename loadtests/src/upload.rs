//! A file uploaded for import, and its run followed to its end.

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
    usage::{self, Taken, Watched},
};

/// An import is asked about so often.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// A run that has not moved for so long is stuck: what died with a worker is taken back within 20 s.
const STUCK_AFTER: Duration = Duration::from_mins(2);
const RUN: &str = "query($id: ID!) {
    importRun(id: $id) { state rows done created updated unchanged failed } }";
const ERRORS: &str = "query($id: ID!) {
    importRun(id: $id) { state errors(first: 5) { nodes { row column message } } } }";

/// What a file holds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// Assets.
    Assets,
    /// Dependencies.
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

/// A run, as the API tells it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Run {
    /// `SUCCEEDED` in the end.
    pub(crate) state: String,
    /// Of the file.
    pub(crate) rows: i64,
    /// Looked at so far.
    pub(crate) done: i64,
    /// New here.
    pub(crate) created: i64,
    /// Known, and different.
    pub(crate) updated: i64,
    /// Known, and the same.
    pub(crate) unchanged: i64,
    /// Wrong.
    pub(crate) failed: i64,
}

/// A file that is on its way to be imported.
pub(crate) struct Upload {
    id: String,
    began: Instant,
    /// From the first byte to the answer.
    pub(crate) took: Duration,
    connection: Connection,
}

/// What came of it.
pub(crate) struct Imported {
    /// Its last word.
    pub(crate) run: Run,
    /// From the first byte to the answer.
    pub(crate) uploaded_in: Duration,
    /// From the first byte to the end of the run.
    pub(crate) took: Duration,
    /// By the API.
    pub(crate) api: Taken,
    /// By the one worker.
    pub(crate) worker: Taken,
    /// The CPU of Postgres, all its processes.
    pub(crate) postgres: Duration,
}

impl Upload {
    /// Sends the file.
    pub(crate) async fn send(
        deployment: &Deployment,
        tenant: &Tenant,
        kind: Kind,
        file: &Path,
    ) -> Result<Self> {
        let mut connection = Connection::open(deployment.api.address).await?;
        let began = Instant::now();
        let answer = connection.send_file(kind.path(), &tenant.token, file).await?;
        let took = began.elapsed();
        let text = String::from_utf8_lossy(answer.body).into_owned();
        ensure!(answer.status == 202, "HTTP {} to an upload: {text}", answer.status);
        let answer: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        let id = answer["id"].as_str().with_context(|| format!("no id of the run: {text}"))?;
        // Whoever takes a large body may close the connection after it.
        let connection = Connection::open(deployment.api.address).await?;
        Ok(Self { id: id.to_owned(), began, took, connection })
    }

    /// How far its run is.
    pub(crate) async fn run(&mut self, tenant: &Tenant) -> Result<Run> {
        let given = json!({ "id": self.id });
        let mut data = self.connection.graphql(Some(&tenant.token), RUN, given).await?;
        let run = data["importRun"].take();
        serde_json::from_value(run.clone()).with_context(|| format!("understand the run {run}"))
    }

    /// Follows the run to its end; `look` sees each state of it.
    ///
    /// # Errors
    /// A run that fails or does not move any more.
    pub(crate) async fn follow(
        &mut self,
        tenant: &Tenant,
        mut look: impl FnMut(&Run) -> Result<()>,
    ) -> Result<(Run, Duration)> {
        let (mut last, mut moved) = (None, Instant::now());
        loop {
            let run = self.run(tenant).await?;
            look(&run)?;
            if !matches!(run.state.as_str(), "QUEUED" | "RUNNING") {
                let took = self.began.elapsed();
                ensure!(
                    run.state == "SUCCEEDED" && run.failed == 0,
                    "{run:?}: {}",
                    self.errors(tenant).await?
                );
                return Ok((run, took));
            }
            if last.as_ref() != Some(&run) {
                (last, moved) = (Some(run), Instant::now());
            }
            ensure!(moved.elapsed() < STUCK_AFTER, "the import stands still: {last:?}");
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    async fn errors(&mut self, tenant: &Tenant) -> Result<String> {
        let given = json!({ "id": self.id });
        let data = self.connection.graphql(Some(&tenant.token), ERRORS, given).await?;
        Ok(data["importRun"]["errors"]["nodes"].to_string())
    }
}

/// Uploads a file and waits for its end, with an eye on what that takes. For a deployment of one worker.
pub(crate) async fn import(
    deployment: &Deployment,
    tenant: &Tenant,
    kind: Kind,
    file: &Path,
) -> Result<Imported> {
    let [worker] = &deployment.workers[..] else { bail!("more than one worker is not watched") };
    let (mut api, mut worker) =
        (Watched::begin(deployment.api.pid())?, Watched::begin(worker.pid())?);
    let before = usage::of_tree(deployment.stores.postgres)?;
    let mut look = || api.look().and_then(|()| worker.look());
    let mut upload = {
        let sending = Upload::send(deployment, tenant, kind, file);
        tokio::pin!(sending);
        let mut every = tokio::time::interval(ASK_EVERY);
        loop {
            tokio::select! {
                sent = &mut sending => break sent?,
                _ = every.tick() => look()?,
            }
        }
    };
    let (run, took) = upload.follow(tenant, |_| look()).await?;
    Ok(Imported {
        run,
        uploaded_in: upload.took,
        took,
        api: api.taken()?,
        worker: worker.taken()?,
        postgres: usage::of_tree(deployment.stores.postgres)?.saturating_sub(before),
    })
}
