//! `GET /reports/compliance/{run}.html` and `.csv`: the report of a compliance run as a printable page, or its open
//! findings as a CSV file. `{run}` is the id of a run, or `latest` for the latest run over all assets.
//!
//! The CSP of the page allows the inline style of the page and nothing else: no script, image, font or form. The page
//! is short and needs no transfer slot. The file is streamed like an export, and occupies a transfer slot (a share of
//! the concurrent uploads and exports of one user or API key).

use std::sync::Arc;

use graphql::{Client, ConnectedCaller, Download, PrintedReport};
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

/// Route of the reports; `:file` is `{run}.html` or `{run}.csv`.
pub(crate) const ROUTE: &str = "/reports/compliance/:file";

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// Handler of the report route.
pub(crate) struct Report<G> {
    gateway: Arc<G>,
    limits: Limits,
    slots: Slots,
}

/// Requested format of a report.
enum Format {
    Page,
    File,
}

impl<G: Gateway> Report<G> {
    pub(crate) fn new(gateway: Arc<G>, limits: &Limits, slots: Slots) -> Self {
        Self { gateway, limits: limits.clone(), slots }
    }

    async fn respond(&self, request: &Request) -> Result<Response, RequestError> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return Err(RequestError::method_not_allowed("GET, HEAD"));
        }
        let (run, format) =
            parse_file_name(request.raw_path_param("file")).ok_or_else(RequestError::not_found)?;
        let client =
            request.extensions().get::<Client>().cloned().ok_or_else(RequestError::internal)?;
        if let Err(refused) = self.gateway.admit(&client).await {
            return answer::error_response(refused, &client.request_id);
        }
        let bearer = bearer::token(request.headers());
        if request.method() == Method::HEAD {
            let request_id = client.request_id.clone();
            let checked = self.gateway.check_download(Download::Report, bearer, client).await;
            if let Err(refused) = checked {
                return answer::error_response(refused, &request_id);
            }
            let content_type = if matches!(format, Format::Page) { HTML } else { CSV };
            let mut response = Response::default();
            response.headers_mut().insert(CONTENT_TYPE, content_type);
            return Ok(response);
        }
        match format {
            Format::Page => self.page(run, bearer, client).await,
            Format::File => self.file(run, bearer, client).await,
        }
    }

    async fn page(
        &self,
        run: &str,
        bearer: Option<&str>,
        client: Client,
    ) -> Result<Response, RequestError> {
        let request_id = client.request_id.clone();
        let PrintedReport { html, style_sha256 } =
            match self.gateway.print_report(run, bearer, client).await {
                Ok(printed) => printed,
                Err(refused) => return answer::error_response(refused, &request_id),
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
        let slot = match &caller.holder {
            Some(holder) => {
                Some(self.slots.acquire_transfer(holder, self.limits.transfers_per_holder)?)
            }
            None => None,
        };
        let pages = match self.gateway.report_file(run, bearer, client).await {
            Ok(pages) => pages,
            Err(refused) => return answer::error_response(refused, &request_id),
        };
        let body = export::body(pages, caller.lost, slot, request_id);
        let mut response = Response::builder().body(body);
        let attachment = HeaderValue::from_static("attachment; filename=\"findings.csv\"");
        response.headers_mut().insert(CONTENT_TYPE, CSV);
        response.headers_mut().insert(CONTENT_DISPOSITION, attachment);
        Ok(response)
    }
}

/// Splits a file name into the run and the requested format. Returns `None` for an unknown extension.
fn parse_file_name(file: Option<&str>) -> Option<(&str, Format)> {
    match file?.rsplit_once('.')? {
        (run, "html") => Some((run, Format::Page)),
        (run, "csv") => Some((run, Format::File)),
        _ => None,
    }
}

impl<G: Gateway> poem::Endpoint for Report<G> {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        Ok(self.respond(&request).await?)
    }
}
