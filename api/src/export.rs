//! `GET /export/assets.csv` and `/export/dependencies.csv`: streams rows as a CSV file, page by page.
//!
//! A page of rows is produced only when the client has read the previous page, so a slow client costs only its
//! connection. A failure after the head of the response closes the connection. With chunked encoding, every client then
//! notices that the file is incomplete.

use std::{io, sync::Arc};

use domain::inventory::import::ImportKind;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use graphql::{AccessLoss, Client, ConnectedCaller, Download};
use http::{
    HeaderValue, Method,
    header::{CONTENT_DISPOSITION, CONTENT_TYPE},
};
use poem::{Body, Request, Response};

use crate::{
    answer, bearer,
    config::Limits,
    gateway::Gateway,
    request_error::RequestError,
    socket::slots::{Slot, Slots},
};

/// Media type of CSV with a header row.
pub(crate) const CSV: HeaderValue =
    HeaderValue::from_static("text/csv; charset=utf-8; header=present");

/// Handler of one of the two export routes.
pub(crate) struct Export<G> {
    kind: ImportKind,
    gateway: Arc<G>,
    limits: Limits,
    /// Slots for transfers, i.e. for concurrent uploads and exports of one user or API key.
    slots: Slots,
}

/// Export routes, each with the kind of its rows.
pub(crate) const ROUTES: [(&str, ImportKind); 2] = [
    ("/export/assets.csv", ImportKind::Assets),
    ("/export/dependencies.csv", ImportKind::Dependencies),
];

impl<G: Gateway> Export<G> {
    pub(crate) fn new(kind: ImportKind, gateway: Arc<G>, limits: &Limits, slots: Slots) -> Self {
        Self { kind, gateway, limits: limits.clone(), slots }
    }

    async fn respond(&self, request: &Request) -> Result<Response, RequestError> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return Err(RequestError::method_not_allowed("GET, HEAD"));
        }
        let client =
            request.extensions().get::<Client>().cloned().ok_or_else(RequestError::internal)?;
        let request_id = client.request_id.clone();
        if let Err(refused) = self.gateway.admit(&client).await {
            return answer::error_response(refused, &request_id);
        }
        let bearer = bearer::token(request.headers());
        let caller = match bearer {
            None => ConnectedCaller::anonymous(), // The gateway rejects anonymous callers.
            Some(bearer) => {
                match self.gateway.authenticate_connection(bearer.to_owned(), client.clone()).await
                {
                    Ok(caller) => caller,
                    Err(refused) => return answer::error_response(refused, &request_id),
                }
            }
        };
        let content_headers = |response: &mut Response| {
            response.headers_mut().insert(CONTENT_TYPE, CSV);
            response.headers_mut().insert(CONTENT_DISPOSITION, disposition(self.kind));
        };
        if request.method() == Method::HEAD {
            let checked = self.gateway.check_download(Download::Export, bearer, client).await;
            if let Err(refused) = checked {
                return answer::error_response(refused, &request_id);
            }
            let mut response = Response::default();
            content_headers(&mut response);
            return Ok(response);
        }
        let slot = match &caller.holder {
            Some(holder) => {
                Some(self.slots.acquire_transfer(holder, self.limits.transfers_per_holder)?)
            }
            None => None,
        };
        let pages = match self.gateway.export(self.kind, bearer, client).await {
            Ok(pages) => pages,
            Err(refused) => return answer::error_response(refused, &request_id),
        };
        let mut response = Response::builder().body(body(pages, caller.lost, slot, request_id));
        content_headers(&mut response);
        Ok(response)
    }
}

impl<G: Gateway> poem::Endpoint for Export<G> {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        Ok(self.respond(&request).await?)
    }
}

/// Streams the pages as a response body. The connection is closed if a page fails, or if `lost` completes because the
/// caller has lost access or permissions.
pub(crate) fn body(
    pages: impl Stream<Item = Result<Vec<u8>, graphql::Error>> + Send + 'static,
    lost: impl Future<Output = AccessLoss> + Send + 'static,
    slot: Option<Slot>,
    request_id: String,
) -> Body {
    let pages = pages.map_err(move |error| {
        tracing::warn!(
            request.id = request_id,
            error = error.message,
            "an export failed; its file is incomplete"
        );
        io::Error::other("the export failed")
    });
    // Not `take_until`, which would end the body normally, so that the file would look complete.
    let lost = stream::once(lost)
        .map(|_| Err(io::Error::new(io::ErrorKind::PermissionDenied, "no longer allowed")));
    let pages = stream::unfold(
        Some((pages.boxed(), lost.boxed(), slot)),
        async |state: Option<(stream::BoxStream<'static, _>, stream::BoxStream<'static, _>, _)>| {
            let (mut pages, mut lost, slot) = state?;
            tokio::select! {
                biased;
                Some(ended) = lost.next() => Some((ended, None)),
                page = pages.next() => Some((page?, Some((pages, lost, slot)))),
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
