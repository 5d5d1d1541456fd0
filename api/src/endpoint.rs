//! GraphQL over HTTP, our own: the stock endpoint runs batches, mutations over GET, and `text/plain`.
//!
//! All 61 audits of npm `graphql-http` pass. A request passes: method → media type of the answer → body, bounded → type of
//! the body → parameters → limits and parsing → kind of operation → execution. Whatever stops it is one envelope.

use std::sync::Arc;

use graphql::{Client, Operation};
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
    refusal::{Code, Refusal},
    socket::Sockets,
};

/// `/graphql`.
pub(crate) struct Endpoint<G> {
    gateway: Arc<G>,
    body_bytes: usize,
    sockets: Sockets<G>,
}

impl<G: Gateway> Endpoint<G> {
    pub(crate) const fn new(gateway: Arc<G>, body_bytes: usize, sockets: Sockets<G>) -> Self {
        Self { gateway, body_bytes, sockets }
    }

    async fn answer(&self, request: &mut Request) -> Result<Response, Refusal> {
        if Sockets::<G>::is_upgrade(request) {
            return self.sockets.open(request);
        }
        let method = request.method().clone();
        if method != Method::GET && method != Method::POST {
            return Err(Refusal::method("GET, POST"));
        }
        // Read before anything is refused: see `body` on resets.
        let body = if method == Method::POST {
            Some(body::read(request.take_body(), self.body_bytes).await)
        } else {
            None
        };
        let media = Media::negotiate(request.headers())?;
        self.run(request, body, media).await.map_err(|refusal| refusal.with_media(media))
    }

    async fn run(
        &self,
        request: &Request,
        body: Option<Result<bytes::Bytes, Refusal>>,
        media: Media,
    ) -> Result<Response, Refusal> {
        let is_get = body.is_none();
        let params = match body {
            Some(body) => {
                let body = body?;
                body::require_json(request.headers())?;
                Params::from_body(&body)?
            }
            None => Params::from_query(request.uri().query().unwrap_or_default())?,
        };
        // `edge` puts it there before any route.
        let client = request.extensions().get::<Client>().cloned().ok_or_else(Refusal::internal)?;
        let request_id = client.request_id.clone();

        let (operation, prepared) = match self.gateway.prepare(
            &params.query,
            params.operation_name.as_deref(),
            params.variables,
        ) {
            Ok(prepared) => prepared,
            Err(refused) => return answer::respond(refused, media, &request_id),
        };
        match operation {
            Operation::Mutation if is_get => return Err(mutation_over_get()),
            Operation::Query | Operation::Mutation => {}
            Operation::Subscription => {
                return Err(Refusal::malformed(
                    "A subscription needs a stream: the WebSocket on /graphql or SSE on /graphql/stream.",
                ));
            }
        }
        let bearer = bearer::token(request.headers());
        let answer = self.gateway.execute(prepared, bearer, client).await;
        answer::respond(answer, media, &request_id)
    }
}

/// A link or an image on a foreign page makes a GET: it must never change anything.
fn mutation_over_get() -> Refusal {
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        Code::Validation,
        "A mutation must be sent by POST.",
    )
    .with_header(ALLOW, HeaderValue::from_static("POST"))
}

impl<G: Gateway> poem::Endpoint for Endpoint<G> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let mut response = self.answer(&mut request).await?;
        response.headers_mut().append(VARY, HeaderValue::from_static("accept"));
        Ok(response)
    }
}
