//! One operation on a connection with many answers: a socket or a stream. Serves queries, mutations and subscriptions.
//!
//! Uses the same gateway as HTTP, so the same limits and permissions apply. Queries and mutations also have the same
//! timeout. A panic ends one operation, never the connection that it runs on.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::{FutureExt, Stream, StreamExt, future, stream};
use graphql::{Answer, Client, Error, ErrorCode, OperationKind, refused};

use crate::{answer::sign, gateway::Gateway, params::Params};

/// Runs an operation and streams its answers, with the request's id in all errors. An answer that was not executed is
/// the last.
pub(crate) fn answers<G: Gateway>(
    gateway: &Arc<G>,
    params: Params,
    bearer: Option<String>,
    client: Client,
    time: Duration,
) -> impl Stream<Item = Answer> + Send + 'static {
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
                tokio::time::timeout(time, answer).await.unwrap_or_else(|_elapsed| timeout())
            };
            answer.into_stream().boxed()
        }
    };
    AssertUnwindSafe(answers).catch_unwind().map(move |answer| {
        let mut answer = answer.unwrap_or_else(|_panic| {
            // The panic hook has logged message and location. The payload may hold secrets: not logged.
            tracing::error!(request.id = request_id, "operation {request_id} panicked");
            refused(&Error::new(
                ErrorCode::Internal,
                "Internal server error; the server's log has the details under this request id.",
            ))
        });
        sign(&mut answer, &request_id);
        answer
    })
}

fn timeout() -> Answer {
    refused(&Error::new(ErrorCode::Timeout, "The operation took too long and was stopped."))
}
