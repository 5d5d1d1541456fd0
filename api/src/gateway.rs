//! The seam between the transports and the engine.
//!
//! One trait with one implementation is against the house style; this one stays because HTTP, WebSocket and SSE must all
//! come through it (limits and permissions in one place), and because the edge's own tests need an engine that panics,
//! hangs, or answers with a chosen code, which no database makes the real one do. Nothing is `dyn`: it costs nothing.

use async_graphql::Variables;
use bytes::Bytes;
use domain::inventory::import::{ImportKind, ImportOrder};
use futures_util::Stream;
use graphql::{
    Answer, BrokenOff, Client, Engine, Error, Operation, Prepared, Printed, Received, Recognised,
};

/// What a transport asks of the engine, in this order.
pub trait Gateway: Send + Sync + 'static {
    /// A document that passed its limits; nothing has been executed.
    type Prepared: Send + 'static;

    /// Checks and parses. Never touches the database, so a transport may call it before anybody is known.
    ///
    /// # Errors
    /// The answer to send, `executed: false`.
    #[expect(clippy::result_large_err, reason = "the engine's shape; built once a request")]
    fn prepare(
        &self,
        source: &str,
        operation_name: Option<&str>,
        variables: Variables,
    ) -> Result<(Operation, Self::Prepared), Answer>;

    /// Authenticates, authorizes the whole document, executes it. Dropping the future cancels its work.
    fn execute(
        &self,
        prepared: Self::Prepared,
        bearer: Option<&str>,
        client: Client,
    ) -> impl Future<Output = Answer> + Send;

    /// Executes a subscription again and again, each time with rights as of then. Ends by itself after an answer that was
    /// not executed, and where there is nothing more to come. Dropping the stream cancels its work.
    fn subscribe(
        &self,
        prepared: Self::Prepared,
        bearer: Option<String>,
        client: Client,
    ) -> impl Stream<Item = Answer> + Send + 'static;

    /// Who stands behind a bearer, watched from now on: for what stays open longer than a request.
    fn recognise(
        &self,
        bearer: String,
        client: Client,
    ) -> impl Future<Output = Result<Recognised, Answer>> + Send;

    /// Takes in a file. Nothing is asked of `pieces` before it is known that the caller may; dropping the future ends it.
    fn upload(
        &self,
        order: ImportOrder,
        bearer: Option<&str>,
        client: Client,
        pieces: impl Stream<Item = Result<Bytes, BrokenOff>> + Send,
    ) -> impl Future<Output = Result<Received, Answer>> + Send;

    /// Gives out a file. An error in the stream means that it is not whole.
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

    /// The report of a run, or of the `latest`, as a page.
    fn print_report(
        &self,
        run: &str,
        bearer: Option<&str>,
        client: Client,
    ) -> impl Future<Output = Result<Printed, Answer>> + Send;

    /// What was broken when that run ended, as a file. An error in the stream means that it is not whole.
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
    ) -> Result<(Operation, Prepared), Answer> {
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
