//! `/graphql/stream`: Server-Sent Events.

use std::time::Duration;

use graphql::AccessLoss;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    harness::{Event, TestServer, within_5_s},
    wire::{Reply, connect, exchange, next, request},
};

fn post(query: &str, headers: &str) -> Vec<u8> {
    let body = serde_json::json!({ "query": query }).to_string();
    let headers = format!(
        "Content-Type: application/json\r\nAccept: text/event-stream\r\nContent-Length: {}\r\n{headers}",
        body.len()
    );
    let mut bytes = request("POST", "/graphql/stream", &headers);
    bytes.extend_from_slice(body.as_bytes());
    bytes
}

/// Returns the reply and all events of a stream that the server ends, without chunk sizes.
async fn stream(server: &TestServer, query: &str, headers: &str) -> (Reply, String) {
    let reply = exchange(server.address, &post(query, headers)).await;
    let events = events(&reply.body);
    (reply, events)
}

fn events(chunks: &str) -> String {
    let is_size = |line: &&str| !line.is_empty() && line.bytes().all(|b| b.is_ascii_hexdigit());
    let lines = chunks.replace("\r\n", "\n");
    lines.lines().filter(|line| !is_size(line) && !line.is_empty()).collect::<Vec<_>>().join("\n")
}

/// Open stream, positioned after the head of the reply.
struct Open(TcpStream);

impl Open {
    async fn new(server: &TestServer, query: &str, headers: &str) -> Self {
        let mut stream = connect(server.address).await;
        stream.write_all(&post(query, headers)).await.unwrap();
        let reply = next(&mut stream).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        Self(stream)
    }

    async fn rest(mut self) -> String {
        let mut bytes = Vec::new();
        within_5_s(self.0.read_to_end(&mut bytes)).await.unwrap();
        events(&String::from_utf8(bytes).unwrap())
    }
}

#[tokio::test]
async fn each_answer_is_an_event_and_the_end_is_one_too() {
    let server = TestServer::new().await;
    let (reply, events) = stream(&server, "subscription { ticks }", "").await;
    assert_eq!(
        (reply.status, reply.header("content-type").unwrap()),
        (200, "text/event-stream; charset=utf-8")
    );
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(
        events,
        "event: next\ndata: {\"data\":{\"ticks\":1}}\nevent: next\ndata: {\"data\":{\"ticks\":2}}\nevent: complete\ndata:"
    );
    let (_, events) = stream(&server, "mutation { change }", "").await;
    assert_eq!(events, "event: next\ndata: {\"data\":{\"change\":true}}\nevent: complete\ndata:");
}

#[tokio::test]
async fn what_is_wrong_with_the_document_is_an_event() {
    let server = TestServer::new().await;
    for (query, code) in [("{ ", None), ("{ panics }", Some("INTERNAL"))] {
        let (reply, events) = stream(&server, query, "").await;
        assert_eq!(reply.status, 200);
        let mut lines = events.lines();
        assert_eq!(lines.next(), Some("event: next"));
        let data = lines.next().unwrap().strip_prefix("data: ").unwrap();
        let data: Value = serde_json::from_str(data).unwrap();
        assert!(data.get("data").is_none() && data["errors"][0]["message"].is_string(), "{data}");
        let extensions = &data["errors"][0]["extensions"];
        assert_eq!(extensions["requestId"].as_str(), reply.header("x-request-id"));
        assert_eq!(extensions["code"].as_str(), code);
        assert_eq!(lines.next(), Some("event: complete"));
    }
}

#[tokio::test]
async fn what_is_wrong_with_the_request_is_a_status() {
    let server = TestServer::new().await;
    let status = async |bytes: Vec<u8>| exchange(server.address, &bytes).await.status;
    assert_eq!(status(request("GET", "/graphql/stream?query=%7Bhello%7D", "")).await, 405);
    let text = String::from_utf8(post("{ hello }", "")).unwrap();
    let but = |from: &str, to: &str| text.replace(from, to).into_bytes();
    assert_eq!(status(but("text/event-stream", "application/json")).await, 406);
    assert_eq!(status(but("application/json", "text/plain")).await, 415);
    assert_eq!(status(but("{\"query\"", "[\"query\"")).await, 400);
    let refused =
        stream(&server, "{ hello }", "Authorization: Bearer refuse-UNAUTHENTICATED\r\n").await.0;
    assert_eq!((refused.status, refused.code().as_str()), (401, "UNAUTHENTICATED"));
}

#[tokio::test]
async fn a_silent_stream_says_comments() {
    let server =
        TestServer::with_limits(|limits| limits.sockets.keep_alive = Duration::from_millis(20))
            .await;
    let mut open = Open::new(&server, "subscription { silence }", "").await;
    let mut seen = String::new();
    while seen.matches(":\n\n").count() < 3 {
        let mut bytes = [0; 64];
        let read = within_5_s(open.0.read(&mut bytes)).await.unwrap();
        seen.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
    }
}

#[tokio::test]
async fn lost_rights_end_the_stream_with_their_reason() {
    for (lost, code) in
        [(AccessLoss::Access, "UNAUTHENTICATED"), (AccessLoss::Permission, "FORBIDDEN")]
    {
        let mut server = TestServer::new().await;
        let open =
            Open::new(&server, "subscription { silence }", "Authorization: Bearer ada\r\n").await;
        assert_eq!(within_5_s(server.events.recv()).await, Some(Event::Started));
        server.lost.send(lost).unwrap();
        let rest = open.rest().await;
        assert!(rest.contains(code) && rest.ends_with("event: complete\ndata:"), "{rest}");
        assert_eq!(within_5_s(server.events.recv()).await, Some(Event::Dropped));
    }
}

#[tokio::test]
async fn a_user_has_so_many_streams() {
    let server = TestServer::with_limits(|limits| limits.sockets.streams_per_holder = 1).await;
    let ada = "Authorization: Bearer ada\r\n";
    let open = Open::new(&server, "subscription { silence }", ada).await;
    let refused = exchange(server.address, &post("{ hello }", ada)).await;
    assert_eq!((refused.status, refused.code().as_str()), (429, "RATE_LIMITED"));
    stream(&server, "{ hello }", "Authorization: Bearer bob\r\n").await;
    drop(open);
    let again =
        async { while exchange(server.address, &post("{ hello }", ada)).await.status != 200 {} };
    within_5_s(again).await;
}

#[tokio::test]
async fn an_address_has_so_many_streams_without_a_token() {
    let server = TestServer::with_limits(|limits| limits.sockets.streams_per_holder = 1).await;
    let _open = Open::new(&server, "subscription { silence }", "").await;
    let (reply, _) = stream(&server, "{ hello }", "").await;
    assert_eq!((reply.status, reply.code().as_str()), (429, "RATE_LIMITED"));
    let (reply, _) = stream(&server, "{ hello }", "Authorization: Bearer ada\r\n").await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_operation_along() {
    let mut server = TestServer::new().await;
    let open = Open::new(&server, "subscription { silence }", "").await;
    assert_eq!(within_5_s(server.events.recv()).await, Some(Event::Started));
    drop(open);
    assert_eq!(within_5_s(server.events.recv()).await, Some(Event::Dropped));
}

#[tokio::test]
async fn stopping_ends_streams() {
    let mut server = TestServer::new().await;
    let open = Open::new(&server, "subscription { silence }", "").await;
    assert_eq!(within_5_s(server.events.recv()).await, Some(Event::Started));
    server.stop.cancel();
    assert!(!open.rest().await.contains("complete"), "a client may ask elsewhere");
    within_5_s(&mut server.ended).await.unwrap().unwrap();
}
