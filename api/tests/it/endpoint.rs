//! Requests that the GraphQL endpoint accepts and rejects.

use tokio::io::AsyncWriteExt;

use crate::{
    harness::TestServer,
    wire::{connect, exchange, last, post, post_with, request},
};

const JSON: &str = "Content-Type: application/json\r\n";
const HELLO: &str = r#"{"query":"{ hello }"}"#;

#[tokio::test]
async fn a_query_is_answered_over_post_and_get() {
    let server = TestServer::new().await;
    for bytes in [post(HELLO), request("GET", "/graphql?query=%7B+hello+%7D", "")] {
        let reply = exchange(server.address, &bytes).await;
        assert_eq!((reply.status, reply.body.as_str()), (200, r#"{"data":{"hello":"world"}}"#));
    }
    assert_eq!(
        exchange(server.address, &post(r#"{"query":"mutation { change }"}"#)).await.body,
        r#"{"data":{"change":true}}"#
    );
}

#[tokio::test]
async fn only_json_in_utf_8_is_taken() {
    let server = TestServer::new().await;
    for headers in [
        "",
        "Content-Type: text/plain\r\n",
        "Content-Type: multipart/form-data; boundary=x\r\n",
        "Content-Type: application/x-www-form-urlencoded\r\n",
        "Content-Type: application/graphql\r\n",
        "Content-Type: application/json; charset=latin1\r\n",
        "Content-Type: application/json\r\nContent-Type: text/plain\r\n",
        "Content-Type: application/json\r\nContent-Encoding: gzip\r\n",
        "Content-Type: application/json\r\nContent-Encoding: identity, gzip\r\n",
    ] {
        let reply = exchange(server.address, &post_with(headers, HELLO.as_bytes())).await;
        assert_eq!((reply.status, reply.code().as_str()), (415, "VALIDATION"), "{headers}");
    }
    for headers in [
        "Content-Type: application/json; charset=UTF-8\r\n",
        "Content-Type: application/json\r\nContent-Encoding: identity\r\n",
    ] {
        let reply = exchange(server.address, &post_with(headers, HELLO.as_bytes())).await;
        assert_eq!(reply.status, 200, "{headers}");
    }
}

#[tokio::test]
async fn bytes_that_are_no_request_object_are_400() {
    let server = TestServer::new().await;
    let deep = format!(r#"{{"query":"{{hello}}","variables":{{"v":{}}}}}"#, "[".repeat(50_000));
    for body in [
        b"".as_slice(),
        b"{",
        b"null",
        b"[{\"query\":\"{ hello }\"}]",
        b"[]",
        b"{\"query\":\"{ hello }\xff\"}",
        b"\xef\xbb\xbf{\"query\":\"{ hello }\"}",
        b"{\"query\":\"{ hello }\",\"query\":\"{ hello }\"}",
        deep.as_bytes(),
    ] {
        let reply = exchange(server.address, &post_with(JSON, body)).await;
        let shown = String::from_utf8_lossy(&body[..body.len().min(40)]);
        assert_eq!((reply.status, reply.code().as_str()), (400, "VALIDATION"), "{shown}");
    }
}

#[tokio::test]
async fn a_batch_is_told_that_it_is_one() {
    let server = TestServer::new().await;
    let reply = exchange(server.address, &post(&format!("[{HELLO},{HELLO}]"))).await;
    let message = reply.json()["errors"][0]["message"].clone();
    assert_eq!(message, "The body is a list: batching is not supported, send one JSON object.");
}

#[tokio::test]
async fn one_byte_over_1_mib_is_413_by_content_length() {
    let server = TestServer::new().await;
    let envelope = r#"{"query":"{ hello }","x":""}"#.len();
    let body = |length: usize| {
        format!(r#"{{"query":"{{ hello }}","x":"{}"}}"#, "x".repeat(length - envelope))
    };
    let reply = exchange(server.address, &post(&body(1024 * 1024))).await;
    assert_eq!(reply.status, 200);
    let reply = exchange(server.address, &post(&body(1024 * 1024 + 1))).await;
    assert_eq!((reply.status, reply.code().as_str()), (413, "VALIDATION"));
}

#[tokio::test]
async fn one_byte_over_1_mib_is_413_in_chunks() {
    let server = TestServer::new().await;
    let mut stream = connect(server.address).await;
    let head = format!("{JSON}Transfer-Encoding: chunked\r\n");
    stream.write_all(&request("POST", "/graphql", &head)).await.unwrap();
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    for _ in 0..16 {
        stream.write_all(chunk.as_bytes()).await.unwrap();
    }
    stream.write_all(b"1\r\n \r\n0\r\n\r\n").await.unwrap();
    let reply = last(stream).await;
    assert_eq!((reply.status, reply.code().as_str()), (413, "VALIDATION"));
}

#[tokio::test]
async fn a_mutation_over_get_is_405_and_allows_post() {
    let server = TestServer::new().await;
    let path = "/graphql?query=mutation%7Bchange%7D";
    for accept in
        ["", "Accept: application/json\r\n", "Accept: application/graphql-response+json\r\n"]
    {
        let reply = exchange(server.address, &request("GET", path, accept)).await;
        assert_eq!((reply.status, reply.header("allow")), (405, Some("POST")));
        assert_eq!(reply.code(), "VALIDATION");
    }
}

#[tokio::test]
async fn a_query_string_that_is_ambiguous_or_broken_is_400() {
    let server = TestServer::new().await;
    for path in [
        "/graphql",
        "/graphql?",
        "/graphql?query=%7Bhello%7D&query=%7Bhello%7D",
        "/graphql?query=%7Bhello%7D&variables=%7B",
        "/graphql?query=%7Bhello%7D&variables=%5B%5D",
        "/graphql?query=%7Bhello%7D&extensions=1",
        "/graphql?query=%7",
        "/graphql?query=%c3%28",
    ] {
        let reply = exchange(server.address, &request("GET", path, "")).await;
        assert_eq!((reply.status, reply.code().as_str()), (400, "VALIDATION"), "{path}");
    }
}

#[tokio::test]
async fn a_subscription_is_shown_to_the_streams() {
    let server = TestServer::new().await;
    for bytes in [
        post(r#"{"query":"subscription { ticks }"}"#),
        request("GET", "/graphql?query=subscription%7Bticks%7D", ""),
    ] {
        let reply = exchange(server.address, &bytes).await;
        assert_eq!((reply.status, reply.code().as_str()), (400, "VALIDATION"));
        assert!(reply.body.contains("WebSocket"), "{reply:?}");
    }
}

#[tokio::test]
async fn other_methods_are_405() {
    let server = TestServer::new().await;
    for method in ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"] {
        let reply = exchange(server.address, &request(method, "/graphql", "")).await;
        assert_eq!((reply.status, reply.header("allow")), (405, Some("GET, POST")), "{method}");
        assert_eq!(reply.code(), "VALIDATION");
    }
}
