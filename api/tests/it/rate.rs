//! The rate of the client address, which every transport asks for before it does anything else.

use crate::{
    harness::{Event, TestServer},
    wire::{Reply, exchange, request},
};

/// Sends a body to a path, and returns the reply.
async fn post(server: &TestServer, path: &str, headers: &str, body: &str) -> Reply {
    let headers = format!("Content-Length: {}\r\n{headers}", body.len());
    let mut bytes = request("POST", path, &headers);
    bytes.extend_from_slice(body.as_bytes());
    exchange(server.address, &bytes).await
}

#[tokio::test]
async fn a_refused_document_is_429_with_the_time_to_wait() {
    let server = TestServer::new().await;
    *server.admissions.lock().unwrap() = 0;
    for (accept, status) in [("application/graphql-response+json", 429), ("application/json", 200)]
    {
        let headers = format!("Content-Type: application/json\r\nAccept: {accept}\r\n");
        // Not even parsed: neither JSON nor GraphQL is required to be right.
        for body in [r#"{"query":"{ hello }"}"#, r#"{"query":"{ "}"#, "no JSON"] {
            let reply = post(&server, "/graphql", &headers, body).await;
            assert_eq!((reply.status, reply.code().as_str()), (status, "RATE_LIMITED"), "{body}");
            assert_eq!(reply.header("retry-after"), Some("2"), "{body}");
            assert_eq!(reply.json()["errors"][0]["extensions"]["retryAfterMs"], 1200);
        }
    }
}

#[tokio::test]
async fn each_route_counts_an_operation_once() {
    let mut server = TestServer::new().await;
    let bearer = "Authorization: Bearer ada\r\n";
    let json = format!("Content-Type: application/json\r\n{bearer}");
    let csv = format!("Content-Type: text/csv\r\n{bearer}");
    for (method, path, headers, body) in [
        ("GET", "/graphql?query=%7Bhello%7D", bearer, ""),
        ("POST", "/graphql", &json, r#"{"query":"{ hello }"}"#),
        ("POST", "/graphql/stream", &json, r#"{"query":"{ hello }"}"#),
        ("POST", "/import/assets", &csv, "name\n"),
        ("GET", "/export/assets.csv", bearer, ""),
        ("GET", "/reports/compliance/latest.html", bearer, ""),
        ("GET", "/reports/compliance/latest.csv", bearer, ""),
    ] {
        let send = async || match method {
            "GET" => exchange(server.address, &request("GET", path, headers)).await,
            _ => post(&server, path, headers, body).await,
        };
        *server.admissions.lock().unwrap() = 1;
        let admitted = send().await;
        assert!((200..300).contains(&admitted.status), "{path}: {admitted:?}");
        let refused = send().await;
        assert_eq!(refused.code(), "RATE_LIMITED", "{method} {path}");
        assert_eq!(refused.header("retry-after"), Some("2"), "{method} {path}");
    }
    let mut uploads = 0;
    while let Ok(event) = server.events.try_recv() {
        uploads += usize::from(matches!(event, Event::UploadStarted(_)));
    }
    assert_eq!(uploads, 1, "a refused upload does not begin");
}

#[tokio::test]
async fn what_is_no_operation_is_not_counted() {
    let server = TestServer::new().await;
    *server.admissions.lock().unwrap() = 0;
    for path in ["/", "/playground", "/favicon.ico", "/.well-known/security.txt"] {
        let reply = exchange(server.address, &request("GET", path, "")).await;
        assert!(reply.status < 400, "{path}: {reply:?}");
    }
}
