//! Runs one operation (query, mutation or subscription) of a WebSocket or SSE stream, and streams its answers.
//!
//! The same gateway is used as for HTTP, so the same limits and permissions apply. Queries and mutations also have the
//! same timeout. A panic ends the operation, never the connection.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::{FutureExt, Stream, StreamExt, future, stream};
use graphql::{Answer, Client, Error, ErrorCode, OperationKind, refused};

use crate::{answer::add_request_id, gateway::Gateway, params::Params};

/// Counts an operation of the client's address, then runs it as [`answers`] does.
pub(crate) fn admitted_answers<G: Gateway>(
    gateway: &Arc<G>,
    params: Params,
    bearer: Option<String>,
    client: Client,
    time_limit: Duration,
) -> impl Stream<Item = Answer> + Send + 'static {
    let gateway = Arc::clone(gateway);
    let admitted = async move {
        match gateway.admit(&client).await {
            Ok(()) => answers(&gateway, params, bearer, client, time_limit).left_stream(),
            Err(mut refused) => {
                add_request_id(&mut refused, &client.request_id);
                stream::once(future::ready(refused)).right_stream()
            }
        }
    };
    stream::once(admitted).flatten()
}

/// Runs an operation and streams its answers, with the request id in all errors. The stream ends after an answer with
/// `executed: false`.
pub(crate) fn answers<G: Gateway>(
    gateway: &Arc<G>,
    params: Params,
    bearer: Option<String>,
    client: Client,
    time_limit: Duration,
) -> impl Stream<Item = Answer> + Send + use<G> + 'static {
    let request_id = client.request_id.clone();
    let prepared =
        gateway.prepare(&params.query, params.operation_name.as_deref(), params.variables);
    let answers = match prepared {
        Err(refused) => stream::once(future::ready(refused)).boxed(),
        Ok((OperationKind::Subscription, prepared)) => {
            gateway.subscribe(prepared, bearer, client).boxed()
        }
        Ok((OperationKind::Query | OperationKind::Mutation, prepared)) => {
            let gateway = Arc::clone(gateway);
            let answer = async move {
                let answer = gateway.execute(prepared, bearer.as_deref(), client);
                tokio::time::timeout(time_limit, answer).await.unwrap_or_else(|_elapsed| timeout())
            };
            answer.into_stream().boxed()
        }
    };
    AssertUnwindSafe(answers).catch_unwind().map(move |answer| {
        let mut answer = answer.unwrap_or_else(|_panic| {
            // The panic hook has logged message and location. The payload is not logged, because it may hold secrets.
            tracing::error!(request.id = request_id, "operation {request_id} panicked");
            refused(&Error::new(
                ErrorCode::Internal,
                "Internal server error; the server's log has the details under this request id.",
            ))
        });
        add_request_id(&mut answer, &request_id);
        answer
    })
}

fn timeout() -> Answer {
    refused(&Error::new(ErrorCode::Timeout, "The operation took too long and was stopped."))
}
