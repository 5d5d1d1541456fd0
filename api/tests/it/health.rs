//! The health listener: liveness, readiness, metrics.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use api::{Health, Limits, Probe};
use async_graphql::futures_util::FutureExt;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    harness::TestServer,
    wire::{exchange, request},
};

fn up() -> Probe {
    Arc::new(|| async { Ok(()) }.boxed())
}

async fn health(probes: Vec<(&'static str, Probe)>, stopping: CancellationToken) -> SocketAddr {
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || metrics::counter!("sentryops_seen").increment(1));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let health = Health::new(probes, recorder.handle(), stopping);
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
