//! `graphql-transport-ws`: the protocol's guarantees, and every way in which a socket ends.
//!
//! The file is long because one client serves a test for each row of the table in `socket/close`.

use std::{net::SocketAddr, time::Duration};

use api::SocketLimits;
use async_graphql::futures_util::{SinkExt, StreamExt};
use graphql::AccessLoss;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest},
};

use crate::{
    harness::{Event, TestServer, within_5_s},
    wire::{connect, exchange, post_and_stay, request},
};

/// WebSocket client that sends exactly what a test passes to it.
struct Ws(WebSocketStream<TcpStream>);

/// End of a socket: the server's close code, or `None` without a close frame.
type Ended = Option<u16>;

impl Ws {
    async fn with(to: SocketAddr, headers: &[(&'static str, &'static str)]) -> Result<Self, Error> {
        let mut request = format!("ws://{to}/graphql").into_client_request()?;
        let own: &mut HeaderMap = request.headers_mut();
        own.insert("sec-websocket-protocol", HeaderValue::from_static("graphql-transport-ws"));
        for (name, value) in headers {
            own.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let (socket, response) = client_async(request, connect(to).await).await?;
        assert_eq!(response.headers()["sec-websocket-protocol"], "graphql-transport-ws");
        assert!(response.headers().contains_key("x-request-id"));
        Ok(Self(socket))
    }

    async fn open(to: SocketAddr) -> Self {
        Self::with(to, &[]).await.unwrap()
    }

    /// Opens a socket and waits for `connection_ack`; `None` connects anonymously.
    async fn known(to: SocketAddr, who: Option<&str>) -> Self {
        let mut ws = Self::open(to).await;
        ws.init(who).await;
        assert_eq!(ws.next().await.unwrap()["type"], "connection_ack");
        ws
    }

    async fn init(&mut self, who: Option<&str>) {
        let payload = who.map(|who| json!({ "Authorization": format!("Bearer {who}") }));
        self.say(json!({ "type": "connection_init", "payload": payload })).await;
    }

    async fn say(&mut self, message: Value) {
        self.text(message.to_string()).await;
    }

    async fn text(&mut self, text: impl Into<String>) {
        self.0.send(Message::text(text.into())).await.unwrap();
    }

    async fn subscribe(&mut self, id: &str, query: &str) {
        self.say(json!({ "id": id, "type": "subscribe", "payload": { "query": query } })).await;
    }

    /// Returns the next message, or the close code.
    async fn next(&mut self) -> Result<Value, Ended> {
        loop {
            match within_5_s(self.0.next()).await {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(frame))) => {
                    return Err(frame.map(|frame| {
                        assert!(!frame.reason.is_empty());
                        u16::from(frame.code)
                    }));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(None),
            }
        }
    }

    /// Returns the close code and skips all messages before it.
    async fn ended(&mut self) -> Ended {
        loop {
            if let Err(ended) = self.next().await {
                return ended;
            }
        }
    }

    /// Returns the data of the next message, which must belong to `id`.
    async fn data(&mut self, id: &str) -> Value {
        let message = self.next().await.unwrap();
        assert_eq!((&message["type"], &message["id"]), (&json!("next"), &json!(id)), "{message}");
        message["payload"]["data"].clone()
    }

    /// Returns the error code with which operation `id` was rejected.
    async fn refusal(&mut self, id: &str) -> String {
        let message = self.next().await.unwrap();
        assert_eq!((&message["type"], &message["id"]), (&json!("error"), &json!(id)), "{message}");
        let extensions = &message["payload"][0]["extensions"];
        assert!(extensions["requestId"].is_string(), "{message}");
        extensions["code"].as_str().unwrap().to_owned()
    }

    async fn complete(&mut self, id: &str) {
        let message = self.next().await.unwrap();
        assert_eq!(message, json!({ "id": id, "type": "complete" }));
    }
}

/// Starts a server with socket limits short enough for a test.
async fn with_limits(change: impl FnOnce(&mut SocketLimits)) -> TestServer {
    TestServer::with_limits(|limits| change(&mut limits.sockets)).await
}

#[tokio::test]
async fn every_kind_of_operation_runs() {
    let server = TestServer::new().await;
    let mut ws = Ws::known(server.address, None).await;
    ws.subscribe("q", "{ hello }").await;
    assert_eq!(ws.data("q").await, json!({ "hello": "world" }));
    ws.complete("q").await;
    ws.subscribe("m", "mutation { change }").await;
    assert_eq!(ws.data("m").await, json!({ "change": true }));
    ws.complete("m").await;
    ws.subscribe("s", "subscription { ticks }").await;
    assert_eq!(ws.data("s").await, json!({ "ticks": 1 }));
    assert_eq!(ws.data("s").await, json!({ "ticks": 2 }));
    ws.complete("s").await;
    // An id can be used again after its operation has ended.
    ws.subscribe("s", "{ hello }").await;
    assert_eq!(ws.data("s").await, json!({ "hello": "world" }));
}

#[tokio::test]
async fn variables_and_the_operations_name_are_passed_on() {
    let server = TestServer::new().await;
    let mut ws = Ws::known(server.address, None).await;
    let payload = json!({ "query": "query A { hello } query B($ms: Int!) { rests(ms: $ms) }",
        "operationName": "B", "variables": { "ms": 1 }, "extensions": null });
    ws.say(json!({ "id": "1", "type": "subscribe", "payload": payload })).await;
    assert_eq!(ws.data("1").await, json!({ "rests": true }));
}

#[tokio::test]
async fn who_asks_stands_in_the_payload_or_in_the_handshake() {
    let server = TestServer::new().await;
    let who = async |ws: &mut Ws| {
        assert_eq!(ws.next().await.unwrap()["type"], "connection_ack");
        ws.subscribe("1", "{ whoami }").await;
        ws.data("1").await["whoami"].as_str().unwrap().to_owned()
    };
    for payload in
        [json!({ "Authorization": "Bearer ada" }), json!({ "authorization": "bearer ada" })]
    {
        let mut ws = Ws::open(server.address).await;
        ws.say(json!({ "type": "connection_init", "payload": payload })).await;
        assert!(who(&mut ws).await.ends_with("Some(\"ada\")"));
    }
    let mut ws = Ws::with(server.address, &[("authorization", "Bearer bob")]).await.unwrap();
    ws.init(None).await;
    assert!(who(&mut ws).await.ends_with("Some(\"bob\")"));
    let mut ws = Ws::with(server.address, &[("authorization", "Bearer bob")]).await.unwrap();
    ws.init(Some("ada")).await;
    assert!(who(&mut ws).await.ends_with("Some(\"ada\")"), "what is said last counts");
    let mut ws = Ws::known(server.address, None).await;
    ws.subscribe("1", "{ whoami }").await;
    let whoami = ws.data("1").await["whoami"].as_str().unwrap().to_owned();
    assert!(whoami.starts_with("127.0.0.1 ") && whoami.ends_with("None"), "{whoami}");
}

#[tokio::test]
async fn each_operation_is_a_request_of_its_own() {
    let server = TestServer::new().await;
    let mut ws = Ws::known(server.address, None).await;
    let mut ids = Vec::new();
    for id in ["1", "2"] {
        ws.subscribe(id, "{ whoami }").await;
        ids.push(ws.data(id).await["whoami"].as_str().unwrap().to_owned());
        ws.complete(id).await;
    }
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn another_sub_protocol_is_refused_by_http() {
    let server = TestServer::new().await;
    let upgrade = "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let open = async |headers: &str| {
        let request = request("GET", "/graphql", headers);
        let text = String::from_utf8(request).unwrap().replace("Connection: close\r\n", "");
        let mut stream = connect(server.address).await;
        stream.write_all(text.as_bytes()).await.unwrap();
        crate::wire::next(&mut stream).await
    };
    let ours = format!("{upgrade}Sec-WebSocket-Protocol: graphql-ws, graphql-transport-ws\r\n");
    let reply = open(&ours).await;
    assert_eq!(reply.status, 101);
    assert_eq!(reply.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    let reply = open(&format!("{upgrade}Sec-WebSocket-Protocol: graphql-ws\r\n")).await;
    assert_eq!((reply.status, reply.code().as_str()), (400, "VALIDATION"));
    assert_eq!(open(upgrade).await.status, 400);
    assert_eq!(open(&ours.replace("dGhlIHNhbXBsZSBub25jZQ==", "short")).await.status, 400);
    assert_eq!(open(&ours.replace("keep-alive, Upgrade", "keep-alive")).await.status, 400);
    let reply = open(&ours.replace("Version: 13", "Version: 8")).await;
    assert_eq!((reply.status, reply.header("sec-websocket-version")), (426, Some("13")));
}

#[tokio::test]
async fn a_foreign_page_opens_no_socket() {
    let server = TestServer::new().await;
    let own: &'static str = format!("http://{}", server.address).leak();
    for origin in [own, "http://localhost:3000"] {
        let mut ws = Ws::with(server.address, &[("origin", origin)]).await.unwrap();
        ws.init(None).await;
        assert!(ws.next().await.is_ok());
    }
    for origin in ["https://evil.example", "null", "http://localhost:3001"] {
        let refused = Ws::with(server.address, &[("origin", origin)]).await.err().unwrap();
        let Error::Http(response) = refused else { panic!("{refused}") };
        assert_eq!(response.status(), 403, "{origin}");
    }
}

#[tokio::test]
async fn who_does_not_introduce_themselves_in_time_is_closed_with_4408() {
    let server = with_limits(|sockets| sockets.init_timeout = Duration::from_millis(50)).await;
    let mut ws = Ws::open(server.address).await;
    ws.say(json!({ "type": "ping" })).await;
    assert_eq!(ws.next().await.unwrap()["type"], "pong");
    assert_eq!(ws.ended().await, Some(4408));
    let mut known = Ws::known(server.address, None).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    known.subscribe("1", "{ hello }").await;
    known.data("1").await;
}

#[tokio::test]
async fn a_second_introduction_is_closed_with_4429() {
    let server = TestServer::new().await;
    let mut ws = Ws::known(server.address, None).await;
    ws.init(None).await;
    assert_eq!(ws.ended().await, Some(4429));
    let mut verifying = Ws::open(server.address).await;
    verifying.init(Some("hang")).await;
    verifying.init(Some("ada")).await;
    assert_eq!(verifying.ended().await, Some(4429));
}

#[tokio::test]
async fn who_asks_before_the_acknowledgement_is_closed_with_4401() {
    let server = TestServer::new().await;
    let mut ws = Ws::open(server.address).await;
    ws.subscribe("1", "{ hello }").await;
    assert_eq!(ws.ended().await, Some(4401));
    let mut verifying = Ws::open(server.address).await;
    verifying.init(Some("hang")).await;
    verifying.subscribe("1", "{ hello }").await;
    assert_eq!(verifying.ended().await, Some(4401));
}

#[tokio::test]
async fn credentials_that_are_no_good_are_closed_with_4401_and_what_is_none_with_4403() {
    let server = TestServer::new().await;
    for (payload, code) in [
        (json!({ "Authorization": "Bearer refuse-UNAUTHENTICATED" }), 4401),
        (json!({ "Authorization": "Bearer refuse-FORBIDDEN" }), 4403),
        (json!({ "Authorization": "Bearer refuse-DEPENDENCY_UNAVAILABLE" }), 1013),
        (json!({ "Authorization": "Basic YTpi" }), 4403),
        (json!({ "Authorization": "ada" }), 4403),
        (json!({ "Authorization": "" }), 4403),
        (json!({ "Authorization": ["Bearer ada"] }), 4403),
        (json!({ "Authorization": "Bearer a", "authorization": "Bearer b" }), 4403),
    ] {
        let mut ws = Ws::open(server.address).await;
        ws.say(json!({ "type": "connection_init", "payload": payload })).await;
        assert_eq!(ws.next().await, Err(Some(code)), "{payload}");
    }
    let mut ws = Ws::with(server.address, &[("authorization", "Basic YTpi")]).await.unwrap();
    ws.init(None).await;
    assert_eq!(ws.ended().await, Some(4403));
}

#[tokio::test]
async fn an_id_in_use_is_closed_with_4409() {
    let server = TestServer::new().await;
    let mut ws = Ws::known(server.address, None).await;
    ws.subscribe("a", "subscription { silence }").await;
    ws.subscribe("a", "{ hello }").await;
    assert_eq!(ws.ended().await, Some(4409));
}

#[tokio::test]
async fn what_is_no_message_is_closed_with_4400() {
    let server = TestServer::new().await;
    for text in ["", "x", "{}", r#"{"type":"start"}"#, r#"{"type":"subscribe","id":"1"}"#] {
        let mut ws = Ws::known(server.address, None).await;
        ws.text(text).await;
        assert_eq!(ws.ended().await, Some(4400), "{text}");
    }
    let mut ws = Ws::known(server.address, None).await;
    ws.0.send(Message::binary(b"{\"type\":\"ping\"}".to_vec())).await.unwrap();
    assert_eq!(ws.ended().await, Some(4400));
}

#[tokio::test]
async fn a_message_over_the_limit_is_closed_with_1009() {
    let server = TestServer::new().await;
    let mut ws = Ws::known(server.address, None).await;
    let document = format!("{{ hello }} # {}", "x".repeat(60 * 1024));
    ws.subscribe("1", &document).await;
    ws.data("1").await;
    ws.complete("1").await;
    let document = format!("{{ hello }} # {}", "x".repeat(64 * 1024));
    ws.subscribe("1", &document).await;
    assert_eq!(ws.ended().await, Some(1009));
}

#[tokio::test]
async fn frames_that_break_the_rules_are_closed_with_1002_and_1007() {
    let server = TestServer::new().await;
    for (frame, code) in [
        (&[0x81, 0x00][..], 1002),                     // not masked
        (&[0xf1, 0x80, 0, 0, 0, 0], 1002),             // reserved bits
        (&[0x81, 0x82, 0, 0, 0, 0, 0xff, 0xfe], 1007), // not UTF-8
        (&[0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], 1009),
    ] {
        let mut ws = Ws::known(server.address, None).await;
        ws.0.get_mut().write_all(frame).await.unwrap();
        assert_eq!(ws.ended().await, Some(code), "{frame:x?}");
    }
}

#[tokio::test]
async fn a_user_has_so_many_sockets_and_others_have_theirs() {
    let server = with_limits(|sockets| sockets.per_holder = 2).await;
    let first = Ws::known(server.address, Some("ada")).await;
    let _second = Ws::known(server.address, Some("ada")).await;
    let mut third = Ws::open(server.address).await;
    third.init(Some("ada")).await;
    assert_eq!(third.ended().await, Some(4429));
    let _other = Ws::known(server.address, Some("bob")).await;
    drop(first);
    let again = async {
        loop {
            let mut ws = Ws::open(server.address).await;
            ws.init(Some("ada")).await;
            if ws.next().await.is_ok() {
                return;
            }
        }
    };
    within_5_s(again).await;
}

#[tokio::test]
async fn an_address_has_so_many_sockets_without_a_token() {
    let server = with_limits(|sockets| sockets.per_holder = 2).await;
    let _nobodies = [Ws::known(server.address, None).await, Ws::known(server.address, None).await];
    let mut third = Ws::open(server.address).await;
    third.init(None).await;
    assert_eq!(third.ended().await, Some(4429));
    let _known = Ws::known(server.address, Some("ada")).await;
}

#[tokio::test]
async fn all_strangers_together_have_so_many_sockets() {
    let server = TestServer::with(|config| {
        config.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
        config.limits.sockets.anonymous = 2;
    })
    .await;
    let from = async |address| {
        let mut ws = Ws::with(server.address, &[("x-forwarded-for", address)]).await.unwrap();
        ws.init(None).await;
        (ws.next().await.map(|message| message["type"].clone()), ws)
    };
    let (first, second) = (from("192.0.2.1:4711").await, from("[2001:db8::1]:4711").await);
    assert_eq!((first.0, second.0), (Ok(json!("connection_ack")), Ok(json!("connection_ack"))));
    assert_eq!(from("192.0.2.2").await.0, Err(Some(4429)));
}

#[tokio::test]
async fn each_introduction_with_a_token_and_each_operation_is_counted() {
    let server = TestServer::new().await;
    *server.admissions.lock().unwrap() = 3;
    let mut ws = Ws::known(server.address, Some("ada")).await;
    ws.subscribe("1", "{ hello }").await;
    ws.data("1").await;
    ws.complete("1").await;
    ws.subscribe("2", "subscription { ticks }").await;
    ws.data("2").await;
    ws.data("2").await;
    ws.complete("2").await;
    ws.subscribe("3", "{ hello }").await;
    assert_eq!(ws.refusal("3").await, "RATE_LIMITED");
    let mut other = Ws::open(server.address).await;
    other.init(Some("ada")).await;
    assert_eq!(other.ended().await, Some(1013), "the client may try again later");
}

#[tokio::test]
async fn one_operation_too_many_is_refused_and_the_socket_goes_on() {
    let server = with_limits(|sockets| sockets.operations = 2).await;
    let mut ws = Ws::known(server.address, None).await;
    ws.subscribe("1", "subscription { silence }").await;
    ws.subscribe("2", "subscription { silence }").await;
    ws.subscribe("3", "{ hello }").await;
    assert_eq!(ws.refusal("3").await, "RATE_LIMITED");
    ws.say(json!({ "id": "1", "type": "complete" })).await;
    ws.subscribe("3", "{ hello }").await;
    assert_eq!(ws.data("3").await, json!({ "hello": "world" }));
}

#[tokio::test]
async fn a_refused_document_is_an_error_and_the_socket_goes_on() {
    let server = TestServer::new().await;
    let mut ws = Ws::known(server.address, None).await;
    ws.subscribe("1", "{ ").await;
    let message = ws.next().await.unwrap();
    assert_eq!((&message["type"], &message["id"]), (&json!("error"), &json!("1")));
    assert!(message["payload"][0]["message"].is_string());
    ws.subscribe("1", "{ hello }").await;
    ws.data("1").await;
}

#[tokio::test]
async fn what_the_client_completes_is_dropped() {
    let mut server = TestServer::new().await;
    let mut ws = Ws::known(server.address, None).await;
    for query in ["subscription { silence }", "{ hangs }"] {
        ws.subscribe("1", query).await;
        assert_eq!(within_5_s(server.events.recv()).await, Some(Event::Started));
        ws.say(json!({ "id": "1", "type": "complete" })).await;
        assert_eq!(within_5_s(server.events.recv()).await, Some(Event::Dropped));
    }
    ws.say(json!({ "id": "unknown", "type": "complete" })).await;
    ws.subscribe("1", "{ hello }").await;
    ws.data("1").await;
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_operations_along() {
    let mut server = TestServer::new().await;
    let mut ws = Ws::known(server.address, None).await;
    ws.subscribe("1", "{ hangs }").await;
    assert_eq!(within_5_s(server.events.recv()).await, Some(Event::Started));
    drop(ws);
    assert_eq!(within_5_s(server.events.recv()).await, Some(Event::Dropped));
}

#[tokio::test]
async fn an_operation_that_takes_too_long_is_stopped() {
    let mut server =
        TestServer::with_limits(|limits| limits.request_timeout = Duration::from_millis(50)).await;
    let mut ws = Ws::known(server.address, None).await;
    ws.subscribe("1", "{ hangs }").await;
    assert_eq!(ws.refusal("1").await, "TIMEOUT");
    assert_eq!(within_5_s(server.events.recv()).await, Some(Event::Started));
    assert_eq!(within_5_s(server.events.recv()).await, Some(Event::Dropped));
}

#[tokio::test]
async fn a_fall_takes_its_operation_and_not_the_socket() {
    let server = TestServer::new().await;
    let mut ws = Ws::known(server.address, None).await;
    for query in ["{ panics }", "subscription { panics }"] {
        ws.subscribe("1", query).await;
        assert_eq!(ws.refusal("1").await, "INTERNAL");
    }
    ws.subscribe("1", "{ hello }").await;
    ws.data("1").await;
}

#[tokio::test]
async fn a_ping_is_answered_with_what_it_brought() {
    let server = TestServer::new().await;
    let mut ws = Ws::open(server.address).await;
    ws.say(json!({ "type": "ping", "payload": { "n": 1 } })).await;
    assert_eq!(ws.next().await.unwrap(), json!({ "type": "pong", "payload": { "n": 1 } }));
    ws.say(json!({ "type": "pong" })).await;
    ws.say(json!({ "type": "ping" })).await;
    assert_eq!(ws.next().await.unwrap(), json!({ "type": "pong" }));
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_gone_and_one_that_does_stays() {
    let mut server = with_limits(|sockets| sockets.ping = Duration::from_millis(50)).await;
    let mut dead = Ws::known(server.address, None).await;
    dead.subscribe("1", "subscription { silence }").await;
    assert_eq!(within_5_s(server.events.recv()).await, Some(Event::Started));
    // The client does not read, so it does not answer pings.
    assert_eq!(within_5_s(server.events.recv()).await, Some(Event::Dropped));
    let mut alive = Ws::known(server.address, None).await;
    alive.subscribe("1", "subscription { silence }").await;
    let silence = timeout(Duration::from_millis(300), alive.0.next());
    let mut pinged = false;
    if let Ok(Some(Ok(Message::Ping(_)))) = silence.await {
        pinged = true;
    }
    assert!(pinged);
    let _ = timeout(Duration::from_millis(300), async { while alive.0.next().await.is_some() {} })
        .await;
    alive.subscribe("2", "{ hello }").await;
    alive.data("2").await;
}

#[tokio::test]
async fn a_slow_reader_is_closed_with_1013() {
    for (messages, bytes) in [(4, usize::MAX), (10_000, 2_000_000)] {
        let server = with_limits(|sockets| {
            (sockets.queue_messages, sockets.queue_bytes) = (messages, bytes);
        })
        .await;
        let mut ws = Ws::known(server.address, None).await;
        ws.subscribe("1", "subscription { flood(count: 1000, bytes: 200000) }").await;
        // Wait until the kernel's buffers and the server's queue are full.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(ws.ended().await, Some(1013), "{messages} {bytes}");
    }
}

#[tokio::test]
async fn an_answer_that_fits_no_queue_is_an_error() {
    let server = with_limits(|sockets| sockets.queue_bytes = 10_000).await;
    let mut ws = Ws::known(server.address, None).await;
    ws.subscribe("1", "subscription { flood(count: 3, bytes: 20000) }").await;
    let message = ws.next().await.unwrap();
    assert_eq!(message["payload"][0]["extensions"]["code"], "QUERY_TOO_COMPLEX");
    ws.subscribe("2", "{ hello }").await;
    ws.data("2").await;
}

#[tokio::test]
async fn lost_rights_close_the_socket_at_once() {
    for (lost, code) in [(AccessLoss::Access, 4401), (AccessLoss::Permission, 4403)] {
        let mut server = TestServer::new().await;
        let mut ada = Ws::known(server.address, Some("ada")).await;
        let mut nobody = Ws::known(server.address, None).await;
        ada.subscribe("1", "subscription { silence }").await;
        assert_eq!(within_5_s(server.events.recv()).await, Some(Event::Started));
        server.lost.send(lost).unwrap();
        assert_eq!(ada.next().await, Err(Some(code)));
        assert_eq!(within_5_s(server.events.recv()).await, Some(Event::Dropped));
        nobody.subscribe("1", "{ hello }").await;
        nobody.data("1").await;
    }
}

#[tokio::test]
async fn nothing_that_waits_is_delivered_after_the_rights_are_lost() {
    let server = TestServer::new().await;
    let mut ws = Ws::known(server.address, Some("ada")).await;
    ws.subscribe("1", "subscription { flood(count: 100000, bytes: 10) }").await;
    ws.data("1").await;
    let lost_at = Instant::now();
    server.lost.send(AccessLoss::Access).unwrap();
    assert_eq!(ws.ended().await, Some(4401));
    assert!(lost_at.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn stopping_closes_sockets_with_1001() {
    let mut server = TestServer::new().await;
    let mut ws = Ws::known(server.address, None).await;
    ws.subscribe("1", "subscription { silence }").await;
    let mut silent = Ws::open(server.address).await;
    assert_eq!(within_5_s(server.events.recv()).await, Some(Event::Started));
    server.stop.cancel();
    assert_eq!(ws.ended().await, Some(1001));
    assert_eq!(silent.ended().await, Some(1001));
    within_5_s(&mut server.ended).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_socket_counts_among_its_addresss_connections() {
    let server = TestServer::with_limits(|limits| limits.connections_per_address = 1).await;
    let ws = Ws::known(server.address, None).await;
    let mut refused = connect(server.address).await;
    let _ = refused.write_all(&post_and_stay(r#"{"query":"{ hello }"}"#)).await;
    assert_eq!(refused.read(&mut [0; 16]).await.unwrap_or(0), 0);
    drop(ws);
    let again = async {
        loop {
            let mut stream = connect(server.address).await;
            let _ = stream.write_all(&post_and_stay(r#"{"query":"{ hello }"}"#)).await;
            if stream.read(&mut [0; 16]).await.unwrap_or(0) > 0 {
                return;
            }
        }
    };
    within_5_s(again).await;
}

#[tokio::test]
async fn without_an_upgrade_it_is_a_query() {
    let reply = exchange(
        TestServer::new().await.address,
        &request("GET", "/graphql?query=%7Bhello%7D", ""),
    )
    .await;
    assert_eq!(reply.body, r#"{"data":{"hello":"world"}}"#);
}
