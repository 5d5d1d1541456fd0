//! GraphQL over HTTP: the endpoint `/graphql`. Chosen: our own endpoint, because the one of async-graphql executes
//! batches, mutations over GET, and bodies of type `text/plain`.
//!
//! All 61 audits of the npm package `graphql-http` pass. The steps are: method → media type of the response →
//! size-limited body → rate of the address → media type of the body → parameters → limits and parsing → operation type
//! → execution. Every error has the same envelope.

use std::sync::Arc;

use graphql::{Client, OperationKind};
use http::{
    HeaderValue, Method, StatusCode,
    header::{ALLOW, VARY},
};
use poem::{Request, Response};

use crate::{
    answer, bearer, body,
    gateway::Gateway,
    media::Media,
    params::Params,
    request_error::{Code, RequestError},
    socket::Sockets,
};

/// Handler of `/graphql`: GET, POST and WebSocket upgrades.
pub(crate) struct Endpoint<G> {
    gateway: Arc<G>,
    body_bytes: usize,
    sockets: Sockets<G>,
}

impl<G: Gateway> Endpoint<G> {
    pub(crate) const fn new(gateway: Arc<G>, body_bytes: usize, sockets: Sockets<G>) -> Self {
        Self { gateway, body_bytes, sockets }
    }

    async fn respond(&self, request: &mut Request) -> Result<Response, RequestError> {
        if Sockets::<G>::is_upgrade(request) {
            return self.sockets.open(request);
        }
        let method = request.method().clone();
        if method != Method::GET && method != Method::POST {
            return Err(RequestError::method_not_allowed("GET, POST"));
        }
        // The body is read before any rejection, so that the client gets the response and no TCP reset: see `body`.
        let body = if method == Method::POST {
            Some(body::read(request.take_body(), self.body_bytes).await)
        } else {
            None
        };
        let media = Media::negotiate(request.headers())?;
        self.run(request, body, media).await.map_err(|error| error.with_media(media))
    }

    async fn run(
        &self,
        request: &Request,
        body: Option<Result<bytes::Bytes, RequestError>>,
        media: Media,
    ) -> Result<Response, RequestError> {
        let is_get = body.is_none();
        // `edge` inserts this extension before any route runs.
        let client =
            request.extensions().get::<Client>().cloned().ok_or_else(RequestError::internal)?;
        let request_id = client.request_id.clone();
        if let Err(refused) = self.gateway.admit(&client).await {
            return answer::respond(refused, media, &request_id);
        }
        let params = match body {
            Some(body) => {
                let body = body?;
                body::require_json(request.headers())?;
                Params::from_body(&body)?
            }
            None => Params::from_query(request.uri().query().unwrap_or_default())?,
        };
        let (operation, prepared) = match self.gateway.prepare(
            &params.query,
            params.operation_name.as_deref(),
            params.variables,
        ) {
            Ok(prepared) => prepared,
            Err(refused) => return answer::respond(refused, media, &request_id),
        };
        match operation {
            OperationKind::Mutation if is_get => return Err(mutation_over_get()),
            OperationKind::Query | OperationKind::Mutation => {}
            OperationKind::Subscription => {
                return Err(RequestError::malformed(
                    "A subscription needs a stream: use the WebSocket on /graphql or SSE on /graphql/stream.",
                ));
            }
        }
        let bearer = bearer::token(request.headers());
        let answer = self.gateway.execute(prepared, bearer, client).await;
        answer::respond(answer, media, &request_id)
    }
}

/// Builds the 405 for a mutation over GET. A link or an image on any page can send a GET, so a GET must never change
/// data.
fn mutation_over_get() -> RequestError {
    RequestError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        Code::Validation,
        "A mutation must be sent by POST.",
    )
    .with_header(ALLOW, HeaderValue::from_static("POST"))
}

impl<G: Gateway> poem::Endpoint for Endpoint<G> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let mut response = self.respond(&mut request).await?;
        response.headers_mut().append(VARY, HeaderValue::from_static("accept"));
        Ok(response)
    }
}
