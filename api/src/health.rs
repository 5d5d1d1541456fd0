//! The health listener: `/livez`, `/readyz` and `/metrics`, on the separate address `HEALTH_ADDR`. The public listener
//! does not serve these paths.
//!
//! Each request for `/readyz` runs all probes concurrently, with a timeout of two seconds per probe. The response is
//! 200 with `"status": "ready"`; 200 with `"status": "degraded"` and the list `degraded` if only optional dependencies
//! are down; or 503 with `"status": "unavailable"` and the list `down` of the required ones. During shutdown, `down`
//! also contains `stopping`. Load balancers then stop sending requests before the process exits. The cause of a failed
//! probe is never part of the response. The cause is logged once, when the dependency goes down.
//!
//! The probes also run every five seconds, for the metric `sentryops_dependency_up`.

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
    client::TrustedProxies, config::Limits, headers::ResponseHeaders, listener::Listener,
    media::Media, request_error::RequestError, server::serve,
};

const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Interval at which the probes run for the metric.
const METRIC_INTERVAL: Duration = Duration::from_secs(5);

/// Readiness probe of one dependency. The error's text is logged and never sent to a client.
pub type Probe = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Dependency of a process, as `/readyz` shows it.
pub struct Dependency {
    name: &'static str,
    is_required: bool,
    probe: Probe,
}

impl Dependency {
    /// Creates a dependency without which the process serves nothing.
    pub const fn required(name: &'static str, probe: Probe) -> Self {
        Self { name, is_required: true, probe }
    }

    /// Creates a dependency without which the process goes on in a degraded state.
    pub const fn optional(name: &'static str, probe: Probe) -> Self {
        Self { name, is_required: false, probe }
    }
}

/// Handler of the health listener of a process; used by the API and by the workers.
pub struct Health {
    dependencies: Vec<Dependency>,
    metrics: PrometheusHandle,
    shutdown_started: CancellationToken,
    /// Dependencies whose probes failed when they last ran. Only changes of the list are logged.
    down_at_last_check: Mutex<Vec<&'static str>>,
}

impl Health {
    /// Creates the handler. `/readyz` responds with 503 once `shutdown_started`, the shutdown token of the process, is
    /// cancelled.
    pub fn new(
        dependencies: Vec<Dependency>,
        metrics: PrometheusHandle,
        shutdown_started: CancellationToken,
    ) -> Self {
        Self { dependencies, metrics, shutdown_started, down_at_last_check: Mutex::default() }
    }

    /// Serves health and metrics until `stop` is cancelled. Cancel `stop` as the last step of a shutdown, so that the
    /// whole shutdown can be monitored.
    ///
    /// # Errors
    /// If the operating system does not return the local address of `listener`.
    pub async fn run(
        self,
        listener: TcpListener,
        limits: &Limits,
        stop: CancellationToken,
    ) -> io::Result<()> {
        // The listener is private and has few clients, so it needs no connection limit. `usize::MAX` means no limit per
        // address. Trusted proxies are exempt from counting, so every address is passed as a trusted proxy.
        let all_networks = vec![Ipv4Net::default().into(), Ipv6Net::default().into()];
        let listener = Listener::new(listener, TrustedProxies(all_networks), usize::MAX);
        metrics::describe_gauge!(
            "sentryops_dependency_up",
            "1 if the dependency answers its readiness probe, otherwise 0."
        );
        let health = Arc::new(self);
        let watch = async {
            let mut ticks = tokio::time::interval(METRIC_INTERVAL);
            loop {
                ticks.tick().await;
                health.probe().await;
            }
        };
        let headers = ResponseHeaders::default();
        tokio::select! {
            served = serve(Arc::clone(&health), listener, limits, headers, stop) => served,
            never = watch => never,
        }
    }

    async fn respond(&self, request: &Request) -> Result<Response, RequestError> {
        let (status, content_type, body) = match request.uri().path() {
            "/livez" | "/readyz" | "/metrics"
                if request.method() != Method::GET && request.method() != Method::HEAD =>
            {
                return Err(RequestError::method_not_allowed("GET, HEAD"));
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
        let failed = self.probe().await;
        let (required, degraded): (Vec<_>, Vec<_>) =
            failed.into_iter().partition(|dependency| dependency.is_required);
        let names = |failed: Vec<&Dependency>| -> Vec<_> {
            failed.iter().map(|dependency| dependency.name).collect()
        };
        let (mut down, degraded) = (names(required), names(degraded));
        if self.shutdown_started.is_cancelled() {
            down.push("stopping");
        }
        let (status, body) = if !down.is_empty() {
            (StatusCode::SERVICE_UNAVAILABLE, json!({ "status": "unavailable", "down": down }))
        } else if !degraded.is_empty() {
            (StatusCode::OK, json!({ "status": "degraded", "degraded": degraded }))
        } else {
            (StatusCode::OK, json!({ "status": "ready" }))
        };
        (status, body.to_string())
    }

    /// Runs all probes, sets the metric, and returns the dependencies whose probes failed.
    async fn probe(&self) -> Vec<&Dependency> {
        let checks = self.dependencies.iter().map(|dependency| async move {
            let result = run_probe(&dependency.probe).await;
            metrics::gauge!("sentryops_dependency_up", "dependency" => dependency.name)
                .set(if result.is_ok() { 1.0 } else { 0.0 });
            result.err().map(|reason| (dependency, reason))
        });
        let failed: Vec<_> = join_all(checks).await.into_iter().flatten().collect();
        self.log_change(&failed);
        failed.into_iter().map(|(dependency, _)| dependency).collect()
    }

    fn log_change(&self, failed: &[(&Dependency, String)]) {
        let mut down = self.down_at_last_check.lock().unwrap_or_else(PoisonError::into_inner);
        for (Dependency { name, .. }, reason) in failed {
            if !down.contains(name) {
                tracing::warn!(dependency = name, reason, "{name} is down");
            }
        }
        for name in down.iter().filter(|name| !failed.iter().any(|(of, _)| of.name == **name)) {
            tracing::info!(dependency = name, "{name} is up again");
        }
        *down = failed.iter().map(|(dependency, _)| dependency.name).collect();
    }
}

/// Runs one probe. A probe that times out or panics counts as failed.
async fn run_probe(probe: &Probe) -> Result<(), String> {
    let result = AssertUnwindSafe(async { probe().await }).catch_unwind();
    match tokio::time::timeout(PROBE_TIMEOUT, result).await {
        Ok(Ok(result)) => result,
        Ok(Err(_panic)) => Err("the probe panicked".to_owned()),
        Err(_elapsed) => Err(format!("the probe timed out after {} s", PROBE_TIMEOUT.as_secs())),
    }
}

impl poem::Endpoint for Health {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let mut response = match self.respond(&request).await {
            Ok(response) => response,
            Err(error) => error.into_response(&Uuid::now_v7().to_string()),
        };
        ResponseHeaders::default().apply(response.headers_mut());
        Ok(response)
    }
}
