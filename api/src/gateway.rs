//! The interface between the transports and the engine.
//!
//! A trait with one implementation is normally avoided in this code base. This one stays for two reasons. HTTP,
//! WebSocket and SSE must all pass through it, so that limits and permissions are checked in one place. The tests of
//! this crate need an engine that panics, hangs, or answers with a chosen code, and no database state makes the real
//! engine do that. Nothing is `dyn`, so the trait costs nothing at run time.

use async_graphql::Variables;
use bytes::Bytes;
use domain::inventory::import::{ImportKind, ImportOrder};
use futures_util::Stream;
use graphql::{
    Answer, BrokenOff, Client, Engine, Error, OperationKind, Prepared, Printed, Received,
    Recognised,
};

/// Engine calls that a transport may make. An operation is prepared first, then executed or subscribed to.
pub trait Gateway: Send + Sync + 'static {
    /// Parsed document that passed its limits; nothing has been executed yet.
    type Prepared: Send + 'static;

    /// Checks and parses a document. Never touches the database, so a transport may call it before authentication.
    ///
    /// # Errors
    /// The answer to send, with `executed: false`.
    #[expect(clippy::result_large_err, reason = "the engine's own type; built once per request")]
    fn prepare(
        &self,
        source: &str,
        operation_name: Option<&str>,
        variables: Variables,
    ) -> Result<(OperationKind, Self::Prepared), Answer>;

    /// Authenticates the caller, authorizes the whole document and executes it. Dropping the future cancels the work.
    fn execute(
        &self,
        prepared: Self::Prepared,
        bearer: Option<&str>,
        client: Client,
    ) -> impl Future<Output = Answer> + Send;

    /// Executes a subscription repeatedly, each time with the caller's permissions of that moment. The stream ends
    /// after an answer that was not executed, and when no further answer is possible. Dropping the stream cancels the
    /// work.
    fn subscribe(
        &self,
        prepared: Self::Prepared,
        bearer: Option<String>,
        client: Client,
    ) -> impl Stream<Item = Answer> + Send + 'static;

    /// Authenticates a bearer and watches it from then on, for connections that outlive a request.
    fn recognise(
        &self,
        bearer: String,
        client: Client,
    ) -> impl Future<Output = Result<Recognised, Answer>> + Send;

    /// Receives a file. `pieces` is not polled before the caller is authorized. Dropping the future ends the upload.
    fn upload(
        &self,
        order: ImportOrder,
        bearer: Option<&str>,
        client: Client,
        pieces: impl Stream<Item = Result<Bytes, BrokenOff>> + Send,
    ) -> impl Future<Output = Result<Received, Answer>> + Send;

    /// Streams the rows of an export as CSV. An error in the stream means that the file is incomplete.
    fn export(
        &self,
        kind: ImportKind,
        bearer: Option<&str>,
        client: Client,
    ) -> impl Future<
        Output = Result<
            impl Stream<Item = Result<Vec<u8>, Error>> + Send + use<Self> + 'static,
            Answer,
        >,
    > + Send;

    /// Returns the report of a compliance run as an HTML page; `run` is an id or `latest`.
    fn print_report(
        &self,
        run: &str,
        bearer: Option<&str>,
        client: Client,
    ) -> impl Future<Output = Result<Printed, Answer>> + Send;

    /// Streams the failures at the end of a compliance run, as CSV. An error in the stream means that the file is
    /// incomplete.
    fn report_file(
        &self,
        run: &str,
        bearer: Option<&str>,
        client: Client,
    ) -> impl Future<
        Output = Result<
            impl Stream<Item = Result<Vec<u8>, Error>> + Send + use<Self> + 'static,
            Answer,
        >,
    > + Send;
}

impl Gateway for Engine {
    type Prepared = Prepared;

    fn prepare(
        &self,
        source: &str,
        operation_name: Option<&str>,
        variables: Variables,
    ) -> Result<(OperationKind, Prepared), Answer> {
        let prepared = Self::prepare(self, source, operation_name, variables)?;
        Ok((prepared.operation, prepared))
    }

    async fn execute(&self, prepared: Prepared, bearer: Option<&str>, client: Client) -> Answer {
        Self::execute(self, prepared, bearer, client).await
    }

    fn subscribe(
        &self,
        prepared: Prepared,
        bearer: Option<String>,
        client: Client,
    ) -> impl Stream<Item = Answer> + Send + 'static {
        Self::subscribe(self, prepared, bearer, client)
    }

    async fn recognise(&self, bearer: String, client: Client) -> Result<Recognised, Answer> {
        Self::recognise(self, bearer, client).await
    }

    async fn upload(
        &self,
        order: ImportOrder,
        bearer: Option<&str>,
        client: Client,
        pieces: impl Stream<Item = Result<Bytes, BrokenOff>> + Send,
    ) -> Result<Received, Answer> {
        Self::upload(self, order, bearer, client, pieces).await
    }

    async fn export(
        &self,
        kind: ImportKind,
        bearer: Option<&str>,
        client: Client,
    ) -> Result<impl Stream<Item = Result<Vec<u8>, Error>> + Send + use<> + 'static, Answer> {
        Self::export(self, kind, bearer, client).await
    }

    async fn print_report(
        &self,
        run: &str,
        bearer: Option<&str>,
        client: Client,
    ) -> Result<Printed, Answer> {
        Self::print_report(self, run, bearer, client).await
    }

    async fn report_file(
        &self,
        run: &str,
        bearer: Option<&str>,
        client: Client,
    ) -> Result<impl Stream<Item = Result<Vec<u8>, Error>> + Send + use<> + 'static, Answer> {
        Self::report_file(self, run, bearer, client).await
    }
}
