//! Middleware around every request. Its steps, in this order: request id and client address, CORS preflight, deadline,
//! panic handling, error envelope, CORS headers, common headers, one log line.
//!
//! Chosen: one middleware instead of seven layers, because the order matters and is visible in one function. The text,
//! headers and body of a request are never logged. Path and method are logged as one of a fixed set of names.

use std::{
    net::{IpAddr, Ipv4Addr},
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use graphql::Client;
use http::{HeaderValue, Method, StatusCode};
use poem::{Endpoint, Request, Response};
use tracing::Instrument;

use crate::{
    client::{REQUEST_ID, TrustedProxies},
    config::Config,
    cors::Cors,
    headers::ResponseHeaders,
    request_error::RequestError,
    upload,
};

/// Middleware around the routes of the public listener.
pub(crate) struct Edge<E> {
    inner: E,
    proxies: TrustedProxies,
    cors: Cors,
    headers: ResponseHeaders,
    request_timeout: Duration,
}

impl<E: Endpoint<Output = Response>> Edge<E> {
    pub(crate) fn new(inner: E, config: &Config) -> Self {
        Self {
            inner,
            proxies: TrustedProxies(config.trusted_proxies.clone()),
            cors: Cors(config.cors_origins.clone()),
            headers: ResponseHeaders::of(config.hsts),
            request_timeout: config.limits.request_timeout,
        }
    }

    /// Returns the response of the route, or an error response if the route fails, panics or exceeds its deadline.
    async fn respond(&self, request: Request, request_id: &str) -> Response {
        let is_unlimited = upload::has_no_deadline(request.uri().path());
        let timeout = if is_unlimited { Duration::MAX } else { self.request_timeout };
        let call = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        let error = match tokio::time::timeout(timeout, call).await {
            Ok(Ok(Ok(response))) => return response,
            Ok(Ok(Err(error))) => RequestError::from(error),
            Ok(Err(_panic)) => {
                // The panic hook has logged message and location. The payload is not logged, because it may hold
                // secrets.
                tracing::error!(request.id = request_id, "request {request_id} panicked");
                RequestError::internal()
            }
            Err(_elapsed) => RequestError::timeout(),
        };
        error.into_response(request_id)
    }
}

impl<E: Endpoint<Output = Response>> Endpoint for Edge<E> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let peer = request
            .remote_addr()
            .as_socket_addr()
            .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), std::net::SocketAddr::ip);
        let request_id = self.proxies.request_id(peer, request.headers());
        let address = self.proxies.client_address(peer, request.headers());
        let mut record = RequestRecord {
            started: Instant::now(),
            method: method(request.method()),
            route: route(request.uri().path()),
            status: None,
            request_id: request_id.clone(),
            address,
        };
        let allowed_origin = self.cors.allowed(request.headers());

        let mut response = if Cors::is_preflight(request.method(), request.headers()) {
            self.cors.preflight(request.headers())
        } else {
            let client = Client { address, request_id: request_id.clone() };
            request.extensions_mut().insert(client);
            let span = tracing::info_span!("request", request.id = %request_id);
            self.respond(request, &request_id).instrument(span).await
        };

        Cors::apply(allowed_origin, response.headers_mut());
        self.headers.apply(response.headers_mut());
        if let Ok(value) = HeaderValue::from_str(&request_id) {
            response.headers_mut().insert(REQUEST_ID, value);
        }
        record.status = Some(response.status());
        Ok(response)
    }
}

/// Log line and metrics of one request. Written on drop, so a client that disconnects early is recorded too.
struct RequestRecord {
    started: Instant,
    method: &'static str,
    route: &'static str,
    /// Response status; `None` if the client disconnected or the server stopped before the response.
    status: Option<StatusCode>,
    request_id: String,
    address: IpAddr,
}

/// Status recorded in logs and metrics for a request without a response, as in nginx. Never sent.
const CLIENT_DISCONNECTED: u16 = 499;

impl Drop for RequestRecord {
    fn drop(&mut self) {
        let Self { started, method, route, status, request_id, address } = self;
        let elapsed = started.elapsed();
        let status = status.map_or(CLIENT_DISCONNECTED, |status| status.as_u16());
        metrics::counter!("sentryops_http_requests_total", "route" => *route, "status" => status.to_string())
            .increment(1);
        metrics::histogram!("sentryops_http_request_seconds", "route" => *route)
            .record(elapsed.as_secs_f64());
        let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            http.method = method,
            http.route = route,
            http.status = status,
            http.ms = ms,
            request.id = %request_id,
            client.address = %address,
            "{method} {route} {status} in {ms} ms",
        );
    }
}

/// Registers the descriptions of the metrics for `/metrics`; called once at start.
pub(crate) fn describe_metrics() {
    metrics::describe_counter!(
        "sentryops_http_requests_total",
        "Requests by route and status; 499 means that the client disconnected before the response."
    );
    metrics::describe_histogram!(
        "sentryops_http_request_seconds",
        metrics::Unit::Seconds,
        "Time from the head of a request to the head of its response."
    );
}

/// Returns the name of the route, from a fixed set. Clients choose paths freely, and the number of label values must
/// stay bounded.
fn route(path: &str) -> &'static str {
    match path {
        "/" => "/",
        "/graphql" => "/graphql",
        "/graphql/stream" => "/graphql/stream",
        "/import/assets" => "/import/assets",
        "/import/dependencies" => "/import/dependencies",
        "/export/assets.csv" => "/export/assets.csv",
        "/export/dependencies.csv" => "/export/dependencies.csv",
        path if path.starts_with("/reports/compliance/") => "/reports/compliance/*",
        "/playground" => "/playground",
        "/favicon.ico" => "/favicon.ico",
        "/.well-known/security.txt" => "/.well-known/security.txt",
        path if path.starts_with("/playground/") => "/playground/*",
        _ => "other",
    }
}

fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "OTHER",
    }
}
