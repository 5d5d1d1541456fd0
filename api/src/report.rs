//! `GET /reports/compliance/{run}.html` and `.csv`: the report of a run, or of the `latest` of all assets, to print or as a file.
//!
//! The page may use its own style and nothing else: no script, no image, no font, no form. It is an answer like a query's and
//! takes no place among the transfers; the file does, and comes as exports do.

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
    refusal::Refusal,
    socket::places::Places,
};

/// Where reports are.
pub(crate) const ROUTE: &str = "/reports/compliance/:file";

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// The route of reports.
pub(crate) struct Report<G> {
    gateway: Arc<G>,
    limits: Limits,
    places: Places,
}

/// What of a report is asked for.
enum Form {
    Page,
    File,
}

impl<G: Gateway> Report<G> {
    pub(crate) fn new(gateway: Arc<G>, limits: &Limits, places: Places) -> Self {
        Self { gateway, limits: limits.clone(), places }
    }

    async fn answer(&self, request: &Request) -> Result<Response, Refusal> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return Err(Refusal::method("GET, HEAD"));
        }
        let (run, form) = asked(request.raw_path_param("file")).ok_or_else(Refusal::not_found)?;
        let client = request.extensions().get::<Client>().cloned().ok_or_else(Refusal::internal)?;
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
    ) -> Result<Response, Refusal> {
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
        let csp = HeaderValue::from_str(&csp).map_err(|_| Refusal::internal())?;
        response.headers_mut().insert(CONTENT_TYPE, HTML);
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, csp);
        Ok(response)
    }

    async fn file(
        &self,
        run: &str,
        bearer: Option<&str>,
        client: Client,
    ) -> Result<Response, Refusal> {
        let request_id = client.request_id.clone();
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

/// The run that a file is named by, and what is asked for of it.
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
