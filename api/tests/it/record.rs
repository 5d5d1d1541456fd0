//! Log line and metrics of a request.

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use metrics_exporter_prometheus::PrometheusBuilder;

use crate::{
    harness::{Event, TestServer, within_5_s},
    wire::{connect, exchange, post_with, request},
};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn one_line_a_request_without_what_was_asked() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let server = TestServer::new().await;
    let headers = "Content-Type: application/json\r\nAuthorization: Bearer canary-token\r\nCookie: canary-cookie\r\n";
    let body = br#"{"query":"query CanaryQuery { hello }","variables":{"canary":"canary"}}"#;
    let reply = exchange(server.address, &post_with(headers, body)).await;
    let _ = exchange(server.address, &request("GET", "/canary/path?canary", "")).await;

    let text = log.text();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(!text.to_lowercase().contains("canary"), "{text}");
    let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let fields = &line["fields"];
    assert_eq!(line["level"], "INFO");
    assert_eq!(fields["http.method"], "POST");
    assert_eq!(fields["http.route"], "/graphql");
    assert_eq!(fields["http.status"], 200);
    assert_eq!(fields["request.id"].as_str(), reply.header("x-request-id"));
    assert_eq!(fields["client.address"], "127.0.0.1");
}

#[tokio::test]
async fn requests_are_counted_by_known_routes_only() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let mut server = TestServer::new().await;
    for path in ["/a", "/b", "/playground/x", "/graphql?query=%7Bhello%7D"] {
        let _ = exchange(server.address, &request("GET", path, "")).await;
    }
    let mut stream = connect(server.address).await;
    let leaves = crate::wire::post(r#"{"query":"{ hangs }"}"#);
    tokio::io::AsyncWriteExt::write_all(&mut stream, &leaves).await.unwrap();
    assert_eq!(within_5_s(server.events.recv()).await, Some(Event::Started));
    drop(stream);
    assert_eq!(within_5_s(server.events.recv()).await, Some(Event::Dropped));
    tokio::task::yield_now().await;

    let text = handle.render();
    for line in [
        r#"sentryops_http_requests_total{route="other",status="404"} 2"#,
        r#"sentryops_http_requests_total{route="/playground/*",status="404"} 1"#,
        r#"sentryops_http_requests_total{route="/graphql",status="200"} 1"#,
        r#"sentryops_http_requests_total{route="/graphql",status="499"} 1"#,
        r#"sentryops_http_request_seconds_count{route="/graphql"} 2"#,
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}
