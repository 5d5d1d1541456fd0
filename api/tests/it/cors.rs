//! CORS: origins that may read a response.

use crate::{
    harness::TestServer,
    wire::{exchange, post_with, request},
};

const GOOD: &str = "https://good.example";

async fn server() -> TestServer {
    TestServer::with(|config| config.cors_origins = vec![GOOD.parse().unwrap()]).await
}

#[tokio::test]
async fn only_the_exact_origin_may_read() {
    let server = server().await;
    for (origin, allowed) in [
        (GOOD, true),
        ("https://good.example.evil", false),
        ("https://evil.good.example", false),
        ("https://good.example:443", false),
        ("https://good.example:8443", false),
        ("http://good.example", false),
        ("https://GOOD.example", false),
        ("https://good.example/", false),
        ("null", false),
        ("*", false),
        ("", false),
    ] {
        let headers = format!("Origin: {origin}\r\nContent-Type: application/json\r\n");
        for bytes in [
            post_with(&headers, br#"{"query":"{ hello }"}"#),
            request("GET", "/graphql?query=%7Bhello%7D", &headers),
            request("GET", "/nothing", &headers),
        ] {
            let reply = exchange(server.address, &bytes).await;
            assert_eq!(
                reply.header("access-control-allow-origin"),
                allowed.then_some(GOOD),
                "{origin}"
            );
            let exposed = reply.header("access-control-expose-headers");
            assert_eq!(exposed, allowed.then_some("x-request-id, retry-after"), "{origin}");
            assert_eq!(reply.header("access-control-allow-credentials"), None);
            // Still served: access needs a bearer, which a page of another origin does not have.
            assert!(reply.status == 200 || reply.status == 404);
        }
    }
}

#[tokio::test]
async fn a_preflight_is_204_and_says_yes_to_ours_only() {
    let server = server().await;
    for (origin, allowed) in [(GOOD, true), ("https://good.example.evil", false), ("null", false)] {
        let headers = format!(
            "Origin: {origin}\r\nAccess-Control-Request-Method: POST\r\n\
             Access-Control-Request-Headers: authorization, content-type\r\n"
        );
        let reply = exchange(server.address, &request("OPTIONS", "/graphql", &headers)).await;
        assert_eq!(reply.status, 204);
        for (name, value) in [
            ("access-control-allow-origin", GOOD),
            ("access-control-allow-methods", "GET, POST"),
            ("access-control-allow-headers", "authorization, content-type, x-request-id"),
            ("access-control-max-age", "600"),
        ] {
            assert_eq!(reply.header(name), allowed.then_some(value), "{origin} {name}");
        }
    }
}

#[tokio::test]
async fn two_origins_are_none() {
    let server = server().await;
    let headers = format!("Origin: {GOOD}\r\nOrigin: {GOOD}\r\n");
    let reply = exchange(server.address, &request("GET", "/", &headers)).await;
    assert_eq!(reply.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn answers_vary_by_origin() {
    let server = server().await;
    let reply = exchange(server.address, &request("GET", "/nothing", "")).await;
    assert_eq!(reply.header("vary"), Some("origin"));
}
