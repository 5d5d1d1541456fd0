//! The interface between the transports (HTTP, WebSocket, SSE) and the engine.
//!
//! Traits with one implementation are normally avoided in this code base. [`Gateway`] is an exception, for two reasons.
//! All transports must call the engine through the same interface, so that limits and permissions are checked in one
//! place. The tests of this crate need an engine that panics, hangs, or answers with a given code, and no state of the
//! database makes the real engine do so. Calls are statically dispatched, so the trait costs nothing at run time.

use async_graphql::Variables;
use bytes::Bytes;
use domain::inventory::import::{ImportKind, ImportOrder};
use futures_util::Stream;
use graphql::{
    Answer, Client, ConnectedCaller, Download, Engine, Error, OperationKind, Prepared,
    PrintedReport, Received, UploadAbort,
};

/// Calls of the engine that the transports use. An operation is prepared first, then executed or subscribed to.
pub trait Gateway: Send + Sync + 'static {
    /// Parsed GraphQL document that is within the limits and has not been executed.
    type Prepared: Send + 'static;

    /// Parses a GraphQL document and checks its limits. Never uses the database, so a transport may call it before
    /// authentication.
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

    /// Counts an operation of the client's address. A transport calls it once per operation, before anything else is done
    /// for the operation. Never uses the database.
    ///
    /// # Errors
    /// The answer to send if the address has sent too many operations.
    fn admit(&self, client: &Client) -> impl Future<Output = Result<(), Answer>> + Send;

    /// Authenticates the caller, authorizes the whole document and executes it. Dropping the future cancels the work.
    fn execute(
        &self,
        prepared: Self::Prepared,
        bearer: Option<&str>,
        client: Client,
    ) -> impl Future<Output = Answer> + Send;

    /// Executes a subscription repeatedly, each time with the current permissions of the caller. The stream ends after
    /// an answer with `executed: false`, and when no further answer is possible. Dropping the stream cancels the work.
    fn subscribe(
        &self,
        prepared: Self::Prepared,
        bearer: Option<String>,
        client: Client,
    ) -> impl Stream<Item = Answer> + Send + 'static;

    /// Authenticates a bearer token, for a connection that outlives a request. The future `lost` of the result
    /// completes when the caller loses access or permissions.
    fn authenticate_connection(
        &self,
        bearer: String,
        client: Client,
    ) -> impl Future<Output = Result<ConnectedCaller, Answer>> + Send;

    /// Receives a file for import. `pieces` is not polled before the caller is authorized. Dropping the future aborts
    /// the upload.
    fn upload(
        &self,
        order: ImportOrder,
        bearer: Option<&str>,
        client: Client,
        pieces: impl Stream<Item = Result<Bytes, UploadAbort>> + Send,
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

    /// Checks that the caller may download a file, and reads and records nothing: for `HEAD`.
    fn check_download(
        &self,
        download: Download,
        bearer: Option<&str>,
        client: Client,
    ) -> impl Future<Output = Result<(), Answer>> + Send;

    /// Returns the report of a compliance run as an HTML page; `run` is an id or `latest`.
    fn print_report(
        &self,
        run: &str,
        bearer: Option<&str>,
        client: Client,
    ) -> impl Future<Output = Result<PrintedReport, Answer>> + Send;

    /// Streams the findings that were open when a compliance run ended, as CSV; `run` is an id or `latest`. An error in
    /// the stream means that the file is incomplete.
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

    async fn admit(&self, client: &Client) -> Result<(), Answer> {
        Self::admit(self, client).await
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

    async fn authenticate_connection(
        &self,
        bearer: String,
        client: Client,
    ) -> Result<ConnectedCaller, Answer> {
        Self::authenticate_connection(self, bearer, client).await
    }

    async fn upload(
        &self,
        order: ImportOrder,
        bearer: Option<&str>,
        client: Client,
        pieces: impl Stream<Item = Result<Bytes, UploadAbort>> + Send,
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

    async fn check_download(
        &self,
        download: Download,
        bearer: Option<&str>,
        client: Client,
    ) -> Result<(), Answer> {
        Self::check_download(self, download, bearer, client).await
    }

    async fn print_report(
        &self,
        run: &str,
        bearer: Option<&str>,
        client: Client,
    ) -> Result<PrintedReport, Answer> {
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
