//! One operation where answers are many: on a socket, on a stream. Queries, mutations and subscriptions alike.
//!
//! The same gateway as HTTP, so the same limits and permissions; the same time for what answers once. A fall takes one
//! operation with it, never the connection it ran on.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::{FutureExt, Stream, StreamExt, future, stream};
use graphql::{Answer, Client, Error, ErrorCode, Operation, refused};

use crate::{answer::sign, gateway::Gateway, params::Params};

/// The answers of an operation, each with the request's id in its errors. One that was not executed is the last.
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
        Ok((Operation::Subscription, prepared)) => {
            gateway.subscribe(prepared, bearer, client).boxed()
        }
        Ok((Operation::Query | Operation::Mutation, prepared)) => {
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
            // The panic hook has written its text and place; what it carries may hold anything.
            tracing::error!(request.id = request_id, "operation {request_id} panicked");
            refused(&Error::new(
                ErrorCode::Internal,
                "Something went wrong on our side; the request id leads to the details in our logs.",
            ))
        });
        sign(&mut answer, &request_id);
        answer
    })
}

fn timeout() -> Answer {
    refused(&Error::new(ErrorCode::Timeout, "The operation took too long and was stopped."))
}
