//! The private port: `/livez`, `/readyz`, `/metrics`. It has its own listener, so the public port cannot reach it.
//!
//! Each readiness request runs all probes concurrently, with a timeout of two seconds per probe. The response names the
//! dependencies that are down but not the reason; the reason is logged, once per change. A process that is shutting
//! down reports not ready, so load balancers stop sending requests before it exits.

use std::{
    io,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use http::{HeaderValue, Method, StatusCode, header::CONTENT_TYPE};
use ipnet::{Ipv4Net, Ipv6Net};
use metrics_exporter_prometheus::PrometheusHandle;
use poem::{Request, Response};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    client::Proxies, config::Limits, headers::Headers, listener::Listener, media::Media,
    request_error::RequestError, server::serve,
};

const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Readiness probe of one dependency. The error's text is logged and never sent to a client.
pub type Probe = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Health port of a process; the same for the API and the workers.
pub struct Health {
    probes: Vec<(&'static str, Probe)>,
    metrics: PrometheusHandle,
    stopping: CancellationToken,
    /// Dependencies that the last readiness request found down. Only changes of this list are logged.
    down: Mutex<Vec<&'static str>>,
}

impl Health {
    /// Creates the health port. `/readyz` fails as soon as `stopping`, the shutdown token of the process, is cancelled.
    pub fn new(
        probes: Vec<(&'static str, Probe)>,
        metrics: PrometheusHandle,
        stopping: CancellationToken,
    ) -> Self {
        Self { probes, metrics, stopping, down: Mutex::default() }
    }

    /// Serves until `stop` is cancelled. Cancel it after everything else has ended, so that the whole shutdown can be
    /// monitored.
    ///
    /// # Errors
    /// If the listener has no local address.
    pub async fn run(
        self,
        listener: TcpListener,
        limits: &Limits,
        stop: CancellationToken,
    ) -> io::Result<()> {
        // The port is private and has few clients, so every address is exempt from the connection limit.
        let everyone = vec![Ipv4Net::default().into(), Ipv6Net::default().into()];
        let listener = Listener::new(listener, Proxies(everyone), usize::MAX);
        serve(self, listener, limits, Headers::default(), stop).await
    }

    async fn answer(&self, request: &Request) -> Result<Response, RequestError> {
        let (status, content_type, body) = match request.uri().path() {
            "/livez" | "/readyz" | "/metrics"
                if request.method() != Method::GET && request.method() != Method::HEAD =>
            {
                return Err(RequestError::method("GET, HEAD"));
            }
            "/livez" => {
                let body = json!({ "status": "alive" }).to_string();
                (StatusCode::OK, Media::Json.content_type(), body)
            }
            "/readyz" => {
                let (status, body) = self.readiness().await;
                (status, Media::Json.content_type(), body)
            }
            "/metrics" => {
                let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                (StatusCode::OK, text, self.metrics.render())
            }
            _ => return Err(RequestError::not_found()),
        };
        let mut response = Response::builder().status(status).body(body);
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        Ok(response)
    }

    async fn readiness(&self) -> (StatusCode, String) {
        let checks = self.probes.iter().map(|(name, probe)| async move {
            run_probe(probe).await.err().map(|reason| (*name, reason))
        });
        let found: Vec<(&'static str, String)> =
            join_all(checks).await.into_iter().flatten().collect();
        self.log_change(&found);

        let mut down: Vec<&str> = found.iter().map(|(name, _)| *name).collect();
        if self.stopping.is_cancelled() {
            down.push("stopping");
        }
        if down.is_empty() {
            (StatusCode::OK, json!({ "status": "ready" }).to_string())
        } else {
            let body = json!({ "status": "unavailable", "down": down });
            (StatusCode::SERVICE_UNAVAILABLE, body.to_string())
        }
    }

    fn log_change(&self, found: &[(&'static str, String)]) {
        let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, reason) in found.iter().filter(|(name, _)| !down.contains(name)) {
            tracing::warn!(dependency = name, reason, "{name} is down");
        }
        for name in down.iter().filter(|name| !found.iter().any(|(still, _)| still == *name)) {
            tracing::info!(dependency = name, "{name} is up again");
        }
        *down = found.iter().map(|(name, _)| *name).collect();
    }
}

/// Runs one probe. A probe that times out or panics counts as down.
async fn run_probe(probe: &Probe) -> Result<(), String> {
    let answer = AssertUnwindSafe(async { probe().await }).catch_unwind();
    match tokio::time::timeout(PROBE_TIMEOUT, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_panic)) => Err("the probe panicked".to_owned()),
        Err(_elapsed) => Err(format!("no answer within {} s", PROBE_TIMEOUT.as_secs())),
    }
}

impl poem::Endpoint for Health {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let mut response = match self.answer(&request).await {
            Ok(response) => response,
            Err(refusal) => refusal.into_response(&Uuid::now_v7().to_string()),
        };
        Headers::default().apply(response.headers_mut());
        Ok(response)
    }
}
