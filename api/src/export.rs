//! `GET /export/assets.csv` and `/export/dependencies.csv`: a file, streamed.
//!
//! The next page is made when the client has taken the last, so a slow one costs nothing but its connection. What fails
//! after the head breaks the connection: with chunked coding every client sees that the file is not whole.

use std::{io, sync::Arc};

use domain::inventory::import::ImportKind;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use graphql::{Client, Lost, Recognised};
use http::{
    HeaderValue, Method,
    header::{CONTENT_DISPOSITION, CONTENT_TYPE},
};
use poem::{Body, Request, Response};

use crate::{
    answer, bearer,
    config::Limits,
    gateway::Gateway,
    refusal::Refusal,
    socket::places::{Place, Places},
};

/// A file of rows, of which the first has names.
pub(crate) const CSV: HeaderValue =
    HeaderValue::from_static("text/csv; charset=utf-8; header=present");

/// One of the two routes.
pub(crate) struct Export<G> {
    kind: ImportKind,
    gateway: Arc<G>,
    limits: Limits,
    places: Places,
}

/// Where files go out.
pub(crate) const ROUTES: [(&str, ImportKind); 2] = [
    ("/export/assets.csv", ImportKind::Assets),
    ("/export/dependencies.csv", ImportKind::Dependencies),
];

impl<G: Gateway> Export<G> {
    pub(crate) fn new(kind: ImportKind, gateway: Arc<G>, limits: &Limits, places: Places) -> Self {
        Self { kind, gateway, limits: limits.clone(), places }
    }

    async fn answer(&self, request: &Request) -> Result<Response, Refusal> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return Err(Refusal::method("GET, HEAD"));
        }
        let client = request.extensions().get::<Client>().cloned().ok_or_else(Refusal::internal)?;
        let request_id = client.request_id.clone();
        let bearer = bearer::token(request.headers());
        let recognised = match bearer {
            None => Recognised::nobody(), // The gateway refuses it.
            Some(bearer) => match self.gateway.recognise(bearer.to_owned(), client.clone()).await {
                Ok(recognised) => recognised,
                Err(refused) => return answer::refuse(refused, &request_id),
            },
        };
        let place = match &recognised.holder {
            Some(holder) => Some(self.places.transfer(holder, self.limits.transfers_per_holder)?),
            None => None,
        };
        let pages = match self.gateway.export(self.kind, bearer, client).await {
            Ok(pages) => pages,
            Err(refused) => return answer::refuse(refused, &request_id),
        };
        let mut response =
            Response::builder().body(body(pages, recognised.lost, place, request_id));
        response.headers_mut().insert(CONTENT_TYPE, CSV);
        response.headers_mut().insert(CONTENT_DISPOSITION, disposition(self.kind));
        Ok(response)
    }
}

impl<G: Gateway> poem::Endpoint for Export<G> {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        Ok(self.answer(&request).await?)
    }
}

/// Pages as a body. One that fails breaks the connection, and so does losing the right to the next.
pub(crate) fn body(
    pages: impl Stream<Item = Result<Vec<u8>, graphql::Error>> + Send + 'static,
    lost: impl Future<Output = Lost> + Send + 'static,
    place: Option<Place>,
    request_id: String,
) -> Body {
    let pages = pages.map_err(move |error| {
        tracing::warn!(request.id = request_id, error = error.message, "an export broke off");
        io::Error::other("the export cannot go on")
    });
    // Not taken until: the file must not look whole.
    let lost = stream::once(lost)
        .map(|_| Err(io::Error::new(io::ErrorKind::PermissionDenied, "no longer allowed")));
    let pages = stream::unfold(
        Some((pages.boxed(), lost.boxed(), place)),
        async |open: Option<(stream::BoxStream<'static, _>, stream::BoxStream<'static, _>, _)>| {
            let (mut pages, mut lost, place) = open?;
            tokio::select! {
                biased;
                Some(refusal) = lost.next() => Some((refusal, None)),
                page = pages.next() => Some((page?, Some((pages, lost, place)))),
            }
        },
    );
    Body::from_bytes_stream(pages)
}

fn disposition(kind: ImportKind) -> HeaderValue {
    HeaderValue::from_static(match kind {
        ImportKind::Assets => "attachment; filename=\"assets.csv\"",
        ImportKind::Dependencies => "attachment; filename=\"dependencies.csv\"",
    })
}
