//! Files on their way in: bytes of whatever number, cut into chunks that wait in Postgres.
//!
//! A chunk is a short transaction of its own, and the next bytes are asked for after it: Postgres sets the pace, and memory
//! is bounded by a piece and a chunk. No row is imported before the last has come, so whatever ends an upload early ends
//! its run as failed and changes nothing; that holds too where the request is dropped, and a process that dies without a
//! word leaves it to the sweep that was ordered when the run was opened.

use std::{pin::pin, sync::Arc};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use domain::{
    Db, Tx,
    access::permission::Permission,
    entity::ImportRunId,
    inventory::import::{
        Chunk, ImportFormat, ImportOrder, ImportRun, Opened, Table, check_columns, chunker::Chunker,
    },
};
use futures_util::{Stream, StreamExt};

use crate::{
    document::error::grouped,
    request::{
        answer::Answer,
        context::{Client, Services},
        error::{Error, ErrorCode, Result},
        permit::{Lost, Permit, failed},
    },
};

/// A file that has come whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The run that imports it.
    pub id: ImportRunId,
    /// Its rows, those that cannot be read included.
    pub rows: i32,
}

/// Why nothing more comes, although it was not the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokenOff {
    /// The client is gone.
    Left,
    /// It is there and sends next to nothing.
    Slow,
    /// We stop.
    Stopping,
    /// Who sends it may no longer.
    Lost(Lost),
}

impl BrokenOff {
    /// As the run's reason says it.
    const fn reason(self) -> &'static str {
        match self {
            Self::Left => "the client left",
            Self::Slow => "it made too little progress",
            Self::Stopping => "the server was stopped",
            Self::Lost(Lost::Access) => "the session or key of its sender ended",
            Self::Lost(Lost::Rights) => "the rights of its sender changed",
        }
    }

    fn error(self) -> Error {
        let code = match self {
            Self::Left => ErrorCode::Validation,
            Self::Slow => ErrorCode::Timeout,
            Self::Stopping => ErrorCode::DependencyUnavailable,
            Self::Lost(Lost::Access) => ErrorCode::Unauthenticated,
            Self::Lost(Lost::Rights) => ErrorCode::Forbidden,
        };
        let reason = self.reason();
        Error::new(code, format!("The upload broke off, {reason}: nothing of it was imported."))
    }
}

/// What ended an upload early.
enum Stopped {
    Broken(BrokenOff),
    Failed(Error),
}

impl<E: Into<Error>> From<E> for Stopped {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Takes in a file: see [`Engine::upload`](crate::Engine::upload).
pub(crate) async fn upload(
    services: &Services,
    order: ImportOrder,
    bearer: Option<&str>,
    client: Client,
    pieces: impl Stream<Item = Result<Bytes, BrokenOff>> + Send,
) -> Result<Received, Answer> {
    let what = ("An import", Permission::AssetImport);
    let permit = services
        .permit(bearer, &client, what, now())
        .await
        .map_err(|error| failed(&error, &client))?;
    let mut upload = Upload::new(services.db.clone(), permit, order);
    let (reason, error) = match upload.receive(pieces).await {
        Ok(received) => return Ok(received),
        Err(Stopped::Failed(error)) => (error.message.clone(), error),
        Err(Stopped::Broken(broken)) => (broken.reason().to_owned(), broken.error()),
    };
    upload.fail(&reason).await.ok_or_else(|| failed(&error, &client))
}

/// An upload under way. Dropped before its end, it ends its run.
struct Upload {
    desk: Arc<Desk>,
    order: ImportOrder,
    chunker: Chunker,
    open: Option<Open>,
}

/// What is needed to end a run, also after its upload is gone.
struct Desk {
    db: Db,
    permit: Permit,
}

/// Its run, once there is one.
struct Open {
    run: ImportRunId,
    table: Table,
    rows: i32,
}

impl Upload {
    fn new(db: Db, permit: Permit, order: ImportOrder) -> Self {
        let chunker = Chunker::new(order.format);
        Self { desk: Arc::new(Desk { db, permit }), order, chunker, open: None }
    }

    async fn receive(
        &mut self,
        pieces: impl Stream<Item = Result<Bytes, BrokenOff>> + Send,
    ) -> Result<Received, Stopped> {
        let mut pieces = pin!(pieces);
        while let Some(piece) = pieces.next().await {
            let chunks =
                self.chunker.push(&piece.map_err(Stopped::Broken)?).map_err(domain::Error::from)?;
            if let Some(before) = self.open().await? {
                return Ok(before);
            }
            for chunk in &chunks {
                let tx = self.desk.write().await?;
                self.keep(&tx, chunk).await?;
                tx.commit().await?;
            }
        }
        let chunks = self.chunker.finish().map_err(domain::Error::from)?;
        match self.open().await? {
            Some(before) => Ok(before),
            None => Ok(self.close(&chunks).await?),
        }
    }

    /// Opens the run as soon as it is known what the rows are; what is there already for the same key.
    async fn open(&mut self) -> Result<Option<Received>> {
        let columns = match (self.order.format, self.chunker.header()) {
            _ if self.open.is_some() => return Ok(None),
            (ImportFormat::Csv, None) => return Ok(None),
            (ImportFormat::Csv, Some(header)) => header.to_vec(),
            (ImportFormat::Json, _) => Vec::new(),
        };
        let kind = self.order.kind;
        if self.order.format == ImportFormat::Csv {
            check_columns(kind, &columns)?;
        }
        let tx = self.desk.write().await?;
        let run = match ImportRun::open(&tx, &self.order, now()).await? {
            Opened::New(run) => run,
            Opened::Existing(run) => {
                tx.rollback().await?;
                return Ok(Some(Received { id: run.id, rows: run.rows }));
            }
        };
        jobs::inventory::import::push_look(&tx, run.id, now()).await?;
        tx.commit().await?;
        let delimiter = self.chunker.delimiter().unwrap_or(b',');
        self.open = Some(Open { run: run.id, table: Table { kind, columns, delimiter }, rows: 0 });
        Ok(None)
    }

    async fn keep(&mut self, tx: &Tx, chunk: &Chunk) -> Result<()> {
        let open = self.open.as_mut().expect("a run is open before there is a row");
        ImportRun::add_chunk(tx, open.run, &open.table, chunk).await?;
        open.rows += chunk.rows;
        Ok(())
    }

    /// The last rows, and the first job.
    async fn close(&mut self, chunks: &[Chunk]) -> Result<Received> {
        let tx = self.desk.write().await?;
        for chunk in chunks {
            self.keep(&tx, chunk).await?;
        }
        let open = self.open.as_ref().expect("a whole file has a run");
        let received = Received { id: open.run, rows: open.rows };
        let run = ImportRun::received(&tx, open.run, now()).await?;
        jobs::inventory::import::push_first(&tx, &run).await?;
        tx.commit().await?;
        self.open = None; // The rest is the jobs'.
        Ok(received)
    }

    /// Ends the run, if there is one; unless it has come whole after all, and only the answer to the last commit was lost.
    async fn fail(&mut self, reason: &str) -> Option<Received> {
        let reason = self.reason(reason)?;
        let run = self.open.as_ref()?.run;
        let received = self.desk.fail(run, &reason).await;
        self.open = None;
        received
    }

    /// With how much had come.
    fn reason(&self, reason: &str) -> Option<String> {
        let open = self.open.as_ref()?;
        let rows = grouped(u64::from(open.rows.unsigned_abs()));
        let bytes = grouped(self.chunker.bytes());
        let reason = reason.trim_end_matches('.');
        Some(format!(
            "the upload broke off after {bytes} bytes and {rows} whole rows, of which none was imported: {reason}"
        ))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(reason) = self.reason(BrokenOff::Left.reason()) else { return };
        let (Some(open), Ok(runtime)) = (self.open.take(), tokio::runtime::Handle::try_current())
        else {
            return; // The sweep ends it.
        };
        let desk = Arc::clone(&self.desk);
        // The request is gone, and with it whoever could wait for this; two short statements, which end by themselves.
        runtime.spawn(async move { desk.fail(open.run, &reason).await });
    }
}

impl Desk {
    async fn write(&self) -> Result<Tx> {
        Ok(self.db.write(self.permit.viewer.org, self.permit.origin.clone()).await?)
    }

    async fn fail(&self, run: ImportRunId, reason: &str) -> Option<Received> {
        let failed = async {
            let tx = self.write().await?;
            let received = ImportRun::break_off(&tx, run, reason, now()).await?;
            if received.is_none() {
                jobs::inventory::import::push_sweep(&tx, run).await?;
            }
            tx.commit().await?;
            Ok::<_, Error>(received.map(|run| Received { id: run.id, rows: run.rows }))
        };
        failed.await.unwrap_or_else(|error| {
            tracing::warn!(run.id = %run, error = error.message, "import {run} is left to the sweep");
            None
        })
    }
}

/// The parts of an upload are minutes apart.
#[expect(
    clippy::disallowed_methods,
    reason = "the edge at which each part of an upload gets its time"
)]
fn now() -> DateTime<Utc> {
    Utc::now()
}
