//! HTTP responses for the engine's answers.

use crate::{
    harness::TestServer,
    wire::{Reply, exchange, post_with},
};

async fn ask(server: &TestServer, accept: &str, bearer: &str, query: &str) -> Reply {
    let headers = format!(
        "Content-Type: application/json\r\nAccept: {accept}\r\nAuthorization: Bearer {bearer}\r\n"
    );
    let body = serde_json::json!({ "query": query }).to_string();
    exchange(server.address, &post_with(&headers, body.as_bytes())).await
}

#[tokio::test]
async fn the_status_says_why_a_request_was_not_executed() {
    let server = TestServer::new().await;
    for (code, status) in [
        ("UNAUTHENTICATED", 401),
        ("FORBIDDEN", 403),
        ("RATE_LIMITED", 429),
        ("VALIDATION", 400),
        ("QUERY_TOO_COMPLEX", 400),
        ("DEPENDENCY_UNAVAILABLE", 503),
        ("INTERNAL", 500),
    ] {
        let bearer = format!("refuse-{code}");
        let modern = ask(&server, "application/graphql-response+json", &bearer, "{ hello }").await;
        let old = ask(&server, "application/json", &bearer, "{ hello }").await;
        assert_eq!((modern.status, old.status), (status, 200), "{code}");
        for reply in [&modern, &old] {
            assert_eq!(reply.code(), code);
            let bearer = reply.header("www-authenticate");
            assert_eq!(bearer.is_some(), code == "UNAUTHENTICATED", "{code}");
            let seconds = (code == "RATE_LIMITED").then_some("2");
            assert_eq!(reply.header("retry-after"), seconds, "{code}");
        }
    }
}

#[tokio::test]
async fn an_executed_request_is_200_with_data_whatever_its_errors() {
    let server = TestServer::new().await;
    for accept in ["application/json", "application/graphql-response+json"] {
        let reply = ask(&server, accept, "x", "{ hello fails }").await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("content-type"), Some(&*format!("{accept}; charset=utf-8")));
        let answer = reply.json();
        assert_eq!(answer["data"]["hello"], "world");
        let id = answer["errors"][0]["extensions"]["requestId"].as_str();
        assert_eq!(id, reply.header("x-request-id"));
    }
}

#[tokio::test]
async fn what_the_client_does_not_accept_is_406() {
    let server = TestServer::new().await;
    let reply = ask(&server, "text/html", "x", "{ hello }").await;
    assert_eq!((reply.status, reply.code().as_str()), (406, "VALIDATION"));
}

#[tokio::test]
async fn a_refusal_of_ours_has_the_negotiated_type() {
    let server = TestServer::new().await;
    let headers = "Accept: application/graphql-response+json\r\nContent-Type: application/json\r\n";
    let reply = exchange(server.address, &post_with(headers, b"{")).await;
    let content_type = reply.header("content-type").unwrap();
    assert_eq!(content_type, "application/graphql-response+json; charset=utf-8");
}
