//! The health listener: liveness, readiness, metrics.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use api::{Dependency, Health, Limits, Probe};
use async_graphql::futures_util::FutureExt;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    harness::{TestServer, within_5_s},
    wire::{exchange, request},
};

fn up() -> Probe {
    Arc::new(|| async { Ok(()) }.boxed())
}

async fn health(probes: Vec<(&'static str, Probe)>, stopping: CancellationToken) -> SocketAddr {
    let required = |(name, probe)| Dependency::required(name, probe);
    serve(probes.into_iter().map(required).collect(), stopping).await
}

async fn serve(dependencies: Vec<Dependency>, stopping: CancellationToken) -> SocketAddr {
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || metrics::counter!("sentryops_seen").increment(1));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let health = Health::new(dependencies, recorder.handle(), stopping);
    tokio::spawn(async move {
        health.run(listener, &Limits::default(), CancellationToken::new()).await
    });
    address
}

#[tokio::test]
async fn readiness_names_what_is_down_and_never_why() {
    let down: Probe =
        Arc::new(|| async { Err("password of postgres://secret".to_owned()) }.boxed());
    let panics: Probe = Arc::new(|| panic!("secret"));
    let probes = vec![("postgres", down), ("redis", up()), ("keys", panics)];
    let address = health(probes, CancellationToken::new()).await;
    for _ in 0..2 {
        let reply = exchange(address, &request("GET", "/readyz", "")).await;
        assert_eq!(reply.status, 503);
        assert_eq!(reply.body, r#"{"down":["postgres","keys"],"status":"unavailable"}"#);
    }
    assert_eq!(exchange(address, &request("GET", "/livez", "")).await.status, 200);
}

#[tokio::test]
async fn a_probe_that_hangs_is_down_after_two_seconds_and_delays_no_other() {
    let hangs: Probe = Arc::new(|| std::future::pending().boxed());
    let address = health(
        vec![("a", Arc::clone(&hangs)), ("b", hangs), ("c", up())],
        CancellationToken::new(),
    )
    .await;
    let started = std::time::Instant::now();
    let reply = exchange(address, &request("GET", "/readyz", "")).await;
    assert_eq!((reply.status, reply.json()["down"].to_string().as_str()), (503, r#"["a","b"]"#));
    // Sequential probes would take four seconds.
    assert!(started.elapsed() < Duration::from_millis(3_900));
}

fn down() -> Probe {
    Arc::new(|| async { Err("password of redis://secret".to_owned()) }.boxed())
}

#[tokio::test]
async fn without_an_optional_dependency_the_process_is_ready_and_says_degraded() {
    let dependencies =
        vec![Dependency::required("postgres", up()), Dependency::optional("redis", down())];
    let address = serve(dependencies, CancellationToken::new()).await;
    let reply = exchange(address, &request("GET", "/readyz", "")).await;
    let expected = r#"{"degraded":["redis"],"status":"degraded"}"#;
    assert_eq!((reply.status, reply.body.as_str()), (200, expected));
}

#[tokio::test]
async fn without_a_required_dependency_only_that_one_is_named() {
    let dependencies = vec![
        Dependency::optional("redis", down()),
        Dependency::required("migrations", down()),
        Dependency::required("keys", up()),
    ];
    let address = serve(dependencies, CancellationToken::new()).await;
    let reply = exchange(address, &request("GET", "/readyz", "")).await;
    let expected = r#"{"down":["migrations"],"status":"unavailable"}"#;
    assert_eq!((reply.status, reply.body.as_str()), (503, expected));
}

/// Runs on one thread, because the recorder is local to the thread.
#[tokio::test]
async fn dependencies_are_measured_without_a_request_for_readiness() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let dependencies =
        vec![Dependency::required("postgres", up()), Dependency::optional("redis", down())];
    let _address = serve(dependencies, CancellationToken::new()).await;
    let measured = async {
        while !handle.render().contains("sentryops_dependency_up{dependency=\"redis\"} 0") {
            tokio::task::yield_now().await;
        }
    };
    within_5_s(measured).await;
    assert!(handle.render().contains("sentryops_dependency_up{dependency=\"postgres\"} 1"));
}

#[tokio::test]
async fn a_process_that_stops_is_not_ready() {
    let stopping = CancellationToken::new();
    let address = health(vec![("postgres", up())], stopping.clone()).await;
    let reply = exchange(address, &request("GET", "/readyz", "")).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, r#"{"status":"ready"}"#));
    stopping.cancel();
    let reply = exchange(address, &request("GET", "/readyz", "")).await;
    assert_eq!((reply.status, reply.json()["down"].to_string().as_str()), (503, r#"["stopping"]"#));
}

#[tokio::test]
async fn metrics_are_shown_here_and_nothing_of_this_in_public() {
    let address = health(Vec::new(), CancellationToken::new()).await;
    let reply = exchange(address, &request("GET", "/metrics", "")).await;
    assert!(reply.body.contains("sentryops_seen 1"), "{reply:?}");
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(exchange(address, &request("POST", "/metrics", "")).await.status, 405);
    assert_eq!(exchange(address, &request("GET", "/graphql", "")).await.status, 404);

    let server = TestServer::new().await;
    for path in ["/metrics", "/livez", "/readyz", "/healthz"] {
        let reply = exchange(server.address, &request("GET", path, "")).await;
        assert_eq!((reply.status, reply.code().as_str()), (404, "NOT_FOUND"));
    }
}
