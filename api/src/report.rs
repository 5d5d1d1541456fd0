//! `GET /reports/compliance/{run}.html` and `.csv`: the report of a run, or of the `latest` run over all assets, as a
//! printable page or as a file.
//!
//! The page's CSP allows its own style and nothing else: no script, image, font or form. The page is answered like a
//! query and uses no transfer slot; the file uses one and is streamed like an export.

use std::sync::Arc;

use graphql::{Client, Printed, Recognised};
use http::{
    HeaderValue, Method,
    header::{CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE},
};
use poem::{Request, Response};

use crate::{
    answer, bearer,
    config::Limits,
    export::{self, CSV},
    gateway::Gateway,
    request_error::RequestError,
    socket::slots::Slots,
};

/// Path of reports; `:file` is `{run}.html` or `{run}.csv`.
pub(crate) const ROUTE: &str = "/reports/compliance/:file";

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// Handler of the report route.
pub(crate) struct Report<G> {
    gateway: Arc<G>,
    limits: Limits,
    slots: Slots,
}

/// Requested form of a report.
enum Form {
    Page,
    File,
}

impl<G: Gateway> Report<G> {
    pub(crate) fn new(gateway: Arc<G>, limits: &Limits, slots: Slots) -> Self {
        Self { gateway, limits: limits.clone(), slots }
    }

    async fn answer(&self, request: &Request) -> Result<Response, RequestError> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return Err(RequestError::method("GET, HEAD"));
        }
        let (run, form) =
            asked(request.raw_path_param("file")).ok_or_else(RequestError::not_found)?;
        let client =
            request.extensions().get::<Client>().cloned().ok_or_else(RequestError::internal)?;
        let bearer = bearer::token(request.headers());
        match form {
            Form::Page => self.page(run, bearer, client).await,
            Form::File => self.file(run, bearer, client).await,
        }
    }

    async fn page(
        &self,
        run: &str,
        bearer: Option<&str>,
        client: Client,
    ) -> Result<Response, RequestError> {
        let request_id = client.request_id.clone();
        let Printed { html, style_sha256 } =
            match self.gateway.print_report(run, bearer, client).await {
                Ok(printed) => printed,
                Err(refused) => return answer::refuse(refused, &request_id),
            };
        let mut response = Response::builder().body(html);
        let csp = format!(
            "default-src 'none'; style-src 'sha256-{style_sha256}'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
        );
        let csp = HeaderValue::from_str(&csp).map_err(|_| RequestError::internal())?;
        response.headers_mut().insert(CONTENT_TYPE, HTML);
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, csp);
        Ok(response)
    }

    async fn file(
        &self,
        run: &str,
        bearer: Option<&str>,
        client: Client,
    ) -> Result<Response, RequestError> {
        let request_id = client.request_id.clone();
        let recognised = match bearer {
            None => Recognised::nobody(), // The gateway rejects anonymous callers.
            Some(bearer) => match self.gateway.recognise(bearer.to_owned(), client.clone()).await {
                Ok(recognised) => recognised,
                Err(refused) => return answer::refuse(refused, &request_id),
            },
        };
        let place = match &recognised.holder {
            Some(holder) => Some(self.slots.transfer(holder, self.limits.transfers_per_holder)?),
            None => None,
        };
        let pages = match self.gateway.report_file(run, bearer, client).await {
            Ok(pages) => pages,
            Err(refused) => return answer::refuse(refused, &request_id),
        };
        let body = export::body(pages, recognised.lost, place, request_id);
        let mut response = Response::builder().body(body);
        let attachment = HeaderValue::from_static("attachment; filename=\"findings.csv\"");
        response.headers_mut().insert(CONTENT_TYPE, CSV);
        response.headers_mut().insert(CONTENT_DISPOSITION, attachment);
        Ok(response)
    }
}

/// Splits a file name into the run and the requested form; `None` for any other extension.
fn asked(file: Option<&str>) -> Option<(&str, Form)> {
    match file?.rsplit_once('.')? {
        (run, "html") => Some((run, Form::Page)),
        (run, "csv") => Some((run, Form::File)),
        _ => None,
    }
}

impl<G: Gateway> poem::Endpoint for Report<G> {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        Ok(self.answer(&request).await?)
    }
}
