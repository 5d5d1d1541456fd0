//! Headers that every response carries, success or error.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::{
    harness::TestServer,
    wire::{Reply, connect, exchange, last, post, post_with, request},
};

fn check(reply: &Reply, what: &str) {
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "strict-origin-when-cross-origin"),
        ("permissions-policy", "camera=(), microphone=(), geolocation=()"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(reply.header(name), Some(value), "{what}");
    }
    let csp = reply.header("content-security-policy").unwrap_or_else(|| panic!("{what}"));
    assert!(csp.starts_with("default-src 'none'") && csp.contains("frame-ancestors 'none'"));
    assert!(!csp.contains("unsafe"), "{csp}");
    assert!(matches!(reply.header("cache-control"), Some("no-store" | "no-cache")), "{what}");
    assert!(reply.header("x-request-id").is_some(), "{what}");
    assert!(reply.header("server").is_none() && reply.header("x-powered-by").is_none());
}

#[tokio::test]
async fn on_every_route_by_every_method() {
    let server = TestServer::new().await;
    for path in [
        "/",
        "/graphql",
        "/graphql/",
        "/graphql?query=%7Bhello%7D",
        "/playground",
        "/playground/playground.js",
        "/playground/nothing",
        "/favicon.ico",
        "/.well-known/security.txt",
        "/metrics",
        "/livez",
        "/nothing",
        "/%ff",
        "//",
        "*",
    ] {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "X"] {
            let reply = exchange(server.address, &request(method, path, "")).await;
            check(&reply, &format!("{method} {path} {}", reply.status));
            if reply.status >= 400 && method != "HEAD" {
                assert!(["VALIDATION", "NOT_FOUND"].contains(&reply.code().as_str()));
            }
        }
    }
}

#[tokio::test]
async fn on_every_error() {
    let server = TestServer::with_limits(|limits| {
        limits.request_timeout = std::time::Duration::from_millis(100);
    })
    .await;
    let json = "Content-Type: application/json\r\n";
    for (status, bytes) in [
        (400, post("{")),
        (406, post_with("Accept: text/html\r\n", b"{}")),
        (413, post(&" ".repeat(1024 * 1024 + 1))),
        (415, post_with("", b"{}")),
        (500, post(r#"{"query":"{ panics }"}"#)),
        (504, post(r#"{"query":"{ hangs }"}"#)),
        (504, request("POST", "/graphql", &format!("{json}Content-Length: 10\r\n"))),
    ] {
        let reply = exchange(server.address, &bytes).await;
        assert_eq!(reply.status, status);
        check(&reply, &status.to_string());
        reply.code();
    }
}

#[tokio::test]
async fn on_bytes_that_are_no_request() {
    let server = TestServer::new().await;
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(100 * 1024));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: x\r\n".repeat(101));
    for (status, bytes) in [
        (400, "hello\r\n\r\n"),
        (400, "GET / HTTP/9.9\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nBad Header: x\r\n\r\n"),
        (431, many.as_str()),
        (431, long.as_str()),
    ] {
        let mut stream = connect(server.address).await;
        let _ = stream.write_all(bytes.as_bytes()).await; // the server may close before all is sent
        let reply = last(stream).await;
        assert_eq!(reply.status, status, "{reply:?}");
        check(&reply, bytes);
        assert_eq!(reply.code(), "VALIDATION");
    }
}

#[tokio::test]
async fn hsts_is_for_production_only() {
    let production = TestServer::with(|config| {
        config.hsts = Some(api::Hsts { max_age: Duration::from_hours(17_520), preload: true });
    })
    .await;
    let reply = exchange(production.address, &request("GET", "/nothing", "")).await;
    let expected = Some("max-age=63072000; includeSubDomains; preload");
    assert_eq!(reply.header("strict-transport-security"), expected);
    let reply = exchange(production.address, b"hello\r\n\r\n").await;
    assert_eq!(reply.header("strict-transport-security"), expected);

    let development = TestServer::new().await;
    let reply = exchange(development.address, &request("GET", "/", "")).await;
    assert_eq!(reply.header("strict-transport-security"), None);
}

#[tokio::test]
async fn a_panic_tells_nothing_but_the_request_id() {
    let server = TestServer::new().await;
    let reply = exchange(server.address, &post(r#"{"query":"{ panics }"}"#)).await;
    assert_eq!((reply.status, reply.code().as_str()), (500, "INTERNAL"));
    for word in ["postgres", "src/", "panick"] {
        assert!(!reply.body.contains(word), "{}", reply.body);
    }
}
