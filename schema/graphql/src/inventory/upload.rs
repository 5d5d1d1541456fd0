//! Upload of files to import. The bytes arrive in pieces of any size, and are split into chunks that are stored in
//! Postgres.
//!
//! Each chunk is stored in its own short transaction, and the next piece is read after the commit. Backpressure
//! therefore comes from Postgres, and memory is bounded by one piece and one chunk. No row is imported before the last
//! row has arrived. If the upload is incomplete, or the request is dropped, the upload fails its run, and nothing is
//! imported. If the process is killed, the run is failed later by a sweep: the job that `push_abandonment_check`
//! schedules when the run is opened.

use std::{pin::pin, sync::Arc};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use domain::{
    Db, Tx,
    access::permission::Permission,
    entity::ImportRunId,
    inventory::{
        import::{
            Chunk, ImportFormat, ImportOrder, ImportRun, Opened, Table, check_columns,
            chunker::Chunker,
        },
        owners::Owners,
    },
};
use futures_util::{Stream, StreamExt};

use crate::{
    document::error::with_separators,
    request::{
        answer::Answer,
        context::{Client, Services},
        error::{Error, ErrorCode, Result},
        permit::{AccessLoss, Permit, failed},
    },
};

/// Result of an upload: a file that was received completely.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The run that imports the file.
    pub id: ImportRunId,
    /// Number of rows in the file, including unreadable rows.
    pub rows: i32,
}

/// Reason why an upload was aborted before the whole file arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadAbort {
    /// The client closed the connection.
    Disconnected,
    /// The client is still connected, but sends data too slowly.
    TooSlow,
    /// The server is shutting down.
    ShuttingDown,
    /// The caller's access or permissions were revoked during the upload.
    AccessLost(AccessLoss),
}

impl UploadAbort {
    /// Returns the reason for the run's field `reason` and for the error message.
    const fn reason(self) -> &'static str {
        match self {
            Self::Disconnected => "the client disconnected",
            Self::TooSlow => "the client sent data too slowly",
            Self::ShuttingDown => "the server shut down",
            Self::AccessLost(AccessLoss::Access) => {
                "the caller's session or API key is no longer valid"
            }
            Self::AccessLost(AccessLoss::Permission) => "the caller's permissions changed",
        }
    }

    fn error(self) -> Error {
        let code = match self {
            Self::Disconnected => ErrorCode::Validation,
            Self::TooSlow => ErrorCode::Timeout,
            Self::ShuttingDown => ErrorCode::DependencyUnavailable,
            Self::AccessLost(AccessLoss::Access) => ErrorCode::Unauthenticated,
            Self::AccessLost(AccessLoss::Permission) => ErrorCode::Forbidden,
        };
        let reason = self.reason();
        Error::new(code, format!("The upload is incomplete, and nothing was imported: {reason}."))
    }
}

/// Cause of the failure of an upload.
enum UploadEnd {
    Broken(UploadAbort),
    Failed(Error),
}

impl<E: Into<Error>> From<E> for UploadEnd {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Receives a file: see [`Engine::upload`](crate::Engine::upload).
pub(crate) async fn upload(
    services: &Services,
    order: ImportOrder,
    bearer: Option<&str>,
    client: Client,
    pieces: impl Stream<Item = Result<Bytes, UploadAbort>> + Send,
) -> Result<Received, Answer> {
    let subject = ("An import", Permission::AssetImport);
    let permit = services.permit(bearer, &client, subject, now()).await;
    let permit = permit
        .and_then(|permit| services.check_queues().map(|()| permit))
        .map_err(|error| failed(&error, &client))?;
    let mut upload = Upload::new(services.db.clone(), permit, order);
    let (reason, error) = match upload.receive(pieces).await {
        Ok(received) => return Ok(received),
        Err(UploadEnd::Failed(error)) => (error.message.clone(), error),
        Err(UploadEnd::Broken(broken)) => (broken.reason().to_owned(), broken.error()),
    };
    upload.fail(&reason).await.ok_or_else(|| failed(&error, &client))
}

/// An upload in progress. If it is dropped before all rows were received, its run is failed.
struct Upload {
    closer: Arc<RunCloser>,
    order: ImportOrder,
    chunker: Chunker,
    open: Option<OpenRun>,
}

/// Database and permit of an upload. Shared with the task that fails the run after the upload was dropped.
struct RunCloser {
    db: Db,
    permit: Permit,
}

/// The run of an upload, from its opening until all rows are received.
struct OpenRun {
    run: ImportRunId,
    table: Table,
    /// Number of rows stored so far.
    rows: i32,
}

impl Upload {
    fn new(db: Db, permit: Permit, order: ImportOrder) -> Self {
        let chunker = Chunker::new(order.format);
        Self { closer: Arc::new(RunCloser { db, permit }), order, chunker, open: None }
    }

    async fn receive(
        &mut self,
        pieces: impl Stream<Item = Result<Bytes, UploadAbort>> + Send,
    ) -> Result<Received, UploadEnd> {
        let mut pieces = pin!(pieces);
        while let Some(piece) = pieces.next().await {
            let chunks = self
                .chunker
                .push(&piece.map_err(UploadEnd::Broken)?)
                .map_err(domain::Error::from)?;
            if let Some(earlier) = self.open().await? {
                return Ok(earlier);
            }
            for chunk in &chunks {
                let tx = self.closer.write().await?;
                self.store_chunk(&tx, chunk).await?;
                tx.commit().await?;
            }
        }
        let chunks = self.chunker.finish().map_err(domain::Error::from)?;
        match self.open().await? {
            Some(earlier) => Ok(earlier),
            None => Ok(self.close(&chunks).await?),
        }
    }

    /// Opens the run if it is not open and the columns are known. Returns the earlier import if the caller has used the
    /// idempotency key before, otherwise `None`.
    async fn open(&mut self) -> Result<Option<Received>> {
        let columns = match (self.order.format, self.chunker.header()) {
            _ if self.open.is_some() => return Ok(None),
            (ImportFormat::Csv, None) => return Ok(None),
            (ImportFormat::Csv, Some(header)) => header.to_vec(),
            (ImportFormat::Json, _) => Vec::new(),
        };
        let kind = self.order.kind;
        if self.order.format == ImportFormat::Csv {
            check_columns(kind, &columns, Owners::of(&self.closer.permit.viewer))?;
        }
        let tx = self.closer.write().await?;
        let run = match ImportRun::open(&tx, &self.order, now()).await? {
            Opened::New(run) => run,
            Opened::Existing(run) => {
                tx.rollback().await?;
                return Ok(Some(Received { id: run.id, rows: run.rows }));
            }
        };
        jobs::inventory::import::push_abandonment_check(&tx, run.id, now()).await?;
        tx.commit().await?;
        let delimiter = self.chunker.delimiter().unwrap_or(b',');
        self.open =
            Some(OpenRun { run: run.id, table: Table { kind, columns, delimiter }, rows: 0 });
        Ok(None)
    }

    async fn store_chunk(&mut self, tx: &Tx, chunk: &Chunk) -> Result<()> {
        let open = self.open.as_mut().expect("a run is open before there is a row");
        ImportRun::add_chunk(tx, open.run, &open.table, chunk).await?;
        open.rows += chunk.rows;
        Ok(())
    }

    /// Stores the last chunks, marks the run as received and pushes the job of the first chunk, in one transaction.
    async fn close(&mut self, chunks: &[Chunk]) -> Result<Received> {
        let tx = self.closer.write().await?;
        for chunk in chunks {
            self.store_chunk(&tx, chunk).await?;
        }
        let open = self.open.as_ref().expect("a whole file has a run");
        let received = Received { id: open.run, rows: open.rows };
        let run = ImportRun::mark_received(&tx, open.run, now()).await?;
        jobs::inventory::import::push_first_chunk(&tx, &run).await?;
        tx.commit().await?;
        self.open = None; // From now on, the run is advanced and ended by its jobs.
        Ok(received)
    }

    /// Fails the run, if it was opened. Returns the received file if all rows had been received: the last commit
    /// succeeded, and only the reply of Postgres was lost.
    async fn fail(&mut self, reason: &str) -> Option<Received> {
        let reason = self.reason(reason)?;
        let run = self.open.as_ref()?.run;
        let received = self.closer.fail(run, &reason).await;
        self.open = None;
        received
    }

    /// Returns the reason for the run's failure, with the numbers of bytes and rows received; `None` without a run.
    fn reason(&self, reason: &str) -> Option<String> {
        let open = self.open.as_ref()?;
        let rows = with_separators(u64::from(open.rows.unsigned_abs()));
        let bytes = with_separators(self.chunker.bytes());
        let reason = reason.trim_end_matches('.');
        Some(format!(
            "the upload ended after {bytes} bytes with {rows} stored rows, and nothing was imported: {reason}"
        ))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(reason) = self.reason(UploadAbort::Disconnected.reason()) else { return };
        let (Some(open), Ok(runtime)) = (self.open.take(), tokio::runtime::Handle::try_current())
        else {
            return; // The scheduled sweep fails the run.
        };
        let closer = Arc::clone(&self.closer);
        // The request was dropped, so no caller awaits this task. It consists of two short statements with timeouts.
        runtime.spawn(async move { closer.fail(open.run, &reason).await });
    }
}

impl RunCloser {
    async fn write(&self) -> Result<Tx> {
        Ok(self.db.write(self.permit.viewer.org, self.permit.origin.clone()).await?)
    }

    async fn fail(&self, run: ImportRunId, reason: &str) -> Option<Received> {
        let failed = async {
            let tx = self.write().await?;
            let received = ImportRun::fail_upload(&tx, run, reason, now()).await?;
            if received.is_none() {
                jobs::inventory::import::push_sweep(&tx, run).await?;
            }
            tx.commit().await?;
            Ok::<_, Error>(received.map(|run| Received { id: run.id, rows: run.rows }))
        };
        failed.await.unwrap_or_else(|error| {
            tracing::warn!(run.id = %run, error = error.message, "cannot mark import {run} as failed; the scheduled sweep of the run will do so");
            None
        })
    }
}

/// Returns the current time. An upload takes minutes, so each of its transactions has its own time.
#[expect(
    clippy::disallowed_methods,
    reason = "the edge at which each transaction of an upload gets its time"
)]
fn now() -> DateTime<Utc> {
    Utc::now()
}
