//! The seam between the transports and the engine.
//!
//! One trait with one implementation is against the house style; this one stays because HTTP, WebSocket and SSE must all
//! come through it (limits and permissions in one place), and because the edge's own tests need an engine that panics,
//! hangs, or answers with a chosen code, which no database makes the real one do. Nothing is `dyn`: it costs nothing.

use async_graphql::Variables;
use graphql::{Answer, Client, Engine, Operation, Prepared};

/// What a transport asks of the engine, in this order.
pub trait Gateway: Send + Sync + 'static {
    /// A document that passed its limits; nothing has been executed.
    type Prepared: Send;

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
}
