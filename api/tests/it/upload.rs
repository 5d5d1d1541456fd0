//! Uploads: accepted and rejected requests, the moment of rejection, and the causes of an early end.

use std::time::{Duration, Instant};

use graphql::{AccessLoss, UploadAbort};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    harness::{Event, TestServer, within_5_s},
    wire::{Reply, connect, exchange, last, request},
};

const ASSETS: &str = "/import/assets";
const CSV: &str = "Authorization: Bearer ada\r\nContent-Type: text/csv\r\n";
const BODY: &[u8] = b"code,name\nA,x\n";

/// Builds the request of a complete upload.
fn upload(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = format!("Content-Length: {}\r\n{headers}", body.len());
    let mut bytes = request("POST", path, &length);
    bytes.extend_from_slice(body);
    bytes
}

/// Sends the head of an upload with a chunked body.
async fn begin(server: &TestServer, headers: &str) -> TcpStream {
    let mut stream = connect(server.address).await;
    let head = request("POST", ASSETS, &format!("Transfer-Encoding: chunked\r\n{headers}"));
    stream.write_all(&head).await.unwrap();
    stream
}

/// Returns the engine's next event after the order and the pieces of an upload.
async fn end_of(server: &mut TestServer) -> Event {
    within_5_s(async {
        loop {
            match server.events.recv().await.unwrap() {
                Event::UploadStarted(_) | Event::PieceReceived(_) => {}
                event => return event,
            }
        }
    })
    .await
}

async fn came(server: &mut TestServer) {
    within_5_s(async {
        while !matches!(server.events.recv().await, Some(Event::PieceReceived(_))) {}
    })
    .await;
}

fn message(reply: &Reply) -> String {
    reply.json()["errors"][0]["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_file_is_taken_whole_or_in_chunks() {
    let mut server = TestServer::new().await;
    let reply = exchange(server.address, &upload(ASSETS, CSV, BODY)).await;
    assert_eq!(reply.status, 202, "{reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/json; charset=utf-8"));
    assert_eq!(reply.json()["rows"], BODY.len());
    assert!(reply.json()["id"].as_str().unwrap().starts_with("imp_"));
    let ordered = "ASSETS csv false KEEP None".to_owned();
    assert_eq!(server.events.recv().await, Some(Event::UploadStarted(ordered)));

    let mut stream = begin(&server, CSV).await;
    stream.write_all(b"5\r\ncode\n\r\n").await.unwrap();
    came(&mut server).await;
    stream.write_all(b"2\r\nA\n\r\n0\r\n\r\n").await.unwrap();
    let reply = last(stream).await;
    assert_eq!((reply.status, &reply.json()["rows"]), (202, &7.into()));
}

#[tokio::test]
async fn the_url_says_how_it_is_read() {
    let mut server = TestServer::new().await;
    for (path, kind, ordered) in [
        ("/import/dependencies", "text/csv", "DEPENDENCIES csv false KEEP None"),
        ("/import/assets?format=json", "text/csv", "ASSETS json false KEEP None"),
        (ASSETS, "application/x-ndjson", "ASSETS json false KEEP None"),
        (ASSETS, "Application/JSON; charset=UTF-8", "ASSETS json false KEEP None"),
        (
            "/import/assets?format=CSV&dryRun=true&emptyCells=clear&idempotencyKey=a%20b",
            "application/x-www-form-urlencoded",
            "ASSETS csv true CLEAR Some(\"a b\")",
        ),
    ] {
        let headers = format!("Authorization: Bearer ada\r\nContent-Type: {kind}\r\n");
        let reply = exchange(server.address, &upload(path, &headers, BODY)).await;
        assert_eq!(reply.status, 202, "{path} {kind}");
        assert_eq!(server.events.recv().await, Some(Event::UploadStarted(ordered.to_owned())));
        assert_eq!(end_of(&mut server).await, Event::Dropped);
    }
}

#[tokio::test]
async fn a_wrong_parameter_is_named_with_the_nearest() {
    let server = TestServer::new().await;
    for (query, path, suggestion) in [
        ("fromat=csv", "fromat", Some("format")),
        ("format=cvs", "format", Some("csv")),
        ("dry_run=true", "dry_run", Some("dryRun")),
        ("dryRun=1", "dryRun", None),
        ("dryRun=true&dryRun=true", "dryRun", None),
        ("colour=red", "colour", None),
    ] {
        let reply =
            exchange(server.address, &upload(&format!("{ASSETS}?{query}"), CSV, BODY)).await;
        assert_eq!((reply.status, reply.code().as_str()), (400, "VALIDATION"), "{query}");
        let fields = &reply.json()["errors"][0]["extensions"]["fields"];
        assert_eq!(fields.as_array().unwrap().len(), 1, "{query}: {fields}");
        assert_eq!(
            (&fields[0]["path"], fields[0]["suggestion"].as_str()),
            (&path.into(), suggestion)
        );
    }
    let reply = exchange(server.address, &upload("/import/assets?a=1&b=2", CSV, BODY)).await;
    assert_eq!(message(&reply), "The URL has 2 invalid parameters: see extensions.fields.");
    let reply = exchange(server.address, &upload("/import/assets?format=%ff", CSV, BODY)).await;
    assert_eq!(message(&reply), "The query string is not percent-encoded UTF-8.");
}

#[tokio::test]
async fn what_is_no_plain_file_is_415_and_says_what_is() {
    let server = TestServer::new().await;
    for (path, headers, output) in [
        (ASSETS, "", "curl --data-binary @assets.csv"),
        ("/import/dependencies", "Content-Type: text/plain\r\n", "@dependencies.csv"),
        (ASSETS, "Content-Type: multipart/form-data; boundary=x\r\n", "not in a form"),
        (
            "/import/assets?format=csv",
            "Content-Type: multipart/form-data; boundary=x\r\n",
            "not in a form",
        ),
        (ASSETS, "Content-Type: text/csv; charset=latin1\r\n", "must be in UTF-8"),
        (ASSETS, "Content-Type: text/csv\r\nContent-Encoding: gzip\r\n", "must not be compressed"),
    ] {
        let headers = format!("Authorization: Bearer ada\r\n{headers}");
        let reply = exchange(server.address, &upload(path, &headers, BODY)).await;
        assert_eq!((reply.status, reply.code().as_str()), (415, "VALIDATION"), "{headers}");
        assert!(message(&reply).contains(output), "{reply:?}");
    }
}

#[tokio::test]
async fn only_those_who_may_are_asked_for_the_file() {
    let mut server = TestServer::new().await;
    for (bearer, status, code) in [
        ("", 401, "UNAUTHENTICATED"),
        ("Authorization: Bearer refuse-UNAUTHENTICATED\r\n", 401, "UNAUTHENTICATED"),
        ("Authorization: Bearer forbid\r\n", 403, "FORBIDDEN"),
    ] {
        let headers = format!(
            "Content-Type: text/csv\r\nExpect: 100-continue\r\nContent-Length: 9\r\n{bearer}"
        );
        let reply = exchange(server.address, &request("POST", ASSETS, &headers)).await;
        assert_eq!((reply.status, reply.code().as_str()), (status, code));
    }
    assert!(server.events.try_recv().is_err(), "nothing was begun");

    let mut stream = connect(server.address).await;
    let headers = format!("{CSV}Expect: 100-continue\r\nContent-Length: {}\r\n", BODY.len());
    stream.write_all(&request("POST", ASSETS, &headers)).await.unwrap();
    let mut go_on = [0; 25];
    within_5_s(stream.read_exact(&mut go_on)).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(BODY).await.unwrap();
    assert_eq!(last(stream).await.status, 202);
}

#[tokio::test]
async fn who_sends_without_looking_gets_the_refusal_all_the_same() {
    let server = TestServer::new().await;
    let body = vec![b'x'; 4 * 1024 * 1024];
    for bearer in ["forbid", "picky"] {
        let headers = format!("Content-Type: text/csv\r\nAuthorization: Bearer {bearer}\r\n");
        let (mut reader, mut writer) = connect(server.address).await.into_split();
        let bytes = upload(ASSETS, &headers, &body);
        let sending = tokio::spawn(async move { writer.write_all(&bytes).await });
        let mut reply = String::new();
        within_5_s(reader.read_to_string(&mut reply)).await.unwrap();
        assert!(reply.starts_with("HTTP/1.1 40") && reply.contains("\"errors\""), "{reply}");
        assert!(reply.to_ascii_lowercase().contains("connection: close"), "{reply}");
        within_5_s(sending).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn what_says_that_it_is_too_large_is_not_read() {
    let mut server = TestServer::new().await;
    for length in [512 * 1024 * 1024 + 1, 1_u64 << 60] {
        let headers = format!("{CSV}Expect: 100-continue\r\nContent-Length: {length}\r\n");
        let reply = exchange(server.address, &request("POST", ASSETS, &headers)).await;
        assert_eq!((reply.status, reply.code().as_str()), (413, "VALIDATION"), "{length}");
    }
    assert!(server.events.try_recv().is_err());
}

#[tokio::test]
async fn an_upload_may_take_longer_than_a_request() {
    let mut server = TestServer::with_limits(|limits| {
        limits.request_timeout = Duration::from_millis(200);
        limits.head_timeout = Duration::from_millis(200);
    })
    .await;
    let mut stream = begin(&server, CSV).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(500) {
        stream.write_all(b"1\r\nx\r\n").await.unwrap();
        came(&mut server).await;
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    assert_eq!(last(stream).await.status, 202);
}

#[tokio::test]
async fn a_silent_upload_ends_with_408() {
    let mut server =
        TestServer::with_limits(|limits| limits.idle_timeout = Duration::from_millis(200)).await;
    let mut stream = begin(&server, CSV).await;
    stream.write_all(b"1\r\nx\r\n").await.unwrap();
    let reply = last(stream).await;
    assert_eq!(reply.status, 408, "{reply:?}");
    assert_eq!(end_of(&mut server).await, Event::UploadAbort(UploadAbort::TooSlow));
}

#[tokio::test]
async fn an_upload_that_drips_ends_with_408() {
    let mut server = TestServer::with_limits(|limits| {
        limits.idle_timeout = Duration::from_millis(300);
        limits.upload_progress_bytes = 1_000;
    })
    .await;
    let (reader, mut writer) = begin(&server, CSV).await.into_split();
    let drip = tokio::spawn(async move {
        while writer.write_all(b"1\r\nx\r\n").await.is_ok() {
            // Only the time waiting for the client counts. A busy machine makes this slower but does not change the
            // outcome.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert_eq!(end_of(&mut server).await, Event::UploadAbort(UploadAbort::TooSlow));
    drop(reader);
    drip.abort();
}

#[tokio::test]
async fn an_upload_whose_client_leaves_ends() {
    let mut server = TestServer::new().await;
    let mut stream = begin(&server, CSV).await;
    stream.write_all(b"1\r\nx\r\n").await.unwrap();
    came(&mut server).await;
    drop(stream);
    // The engine gets the error or is dropped; `graphql` tests that the run ends in both cases.
    let ended = end_of(&mut server).await;
    assert!(
        matches!(ended, Event::UploadAbort(UploadAbort::Disconnected) | Event::Dropped),
        "{ended:?}"
    );
}

#[tokio::test]
async fn an_upload_ends_with_the_session_of_its_sender() {
    for lost in [AccessLoss::Access, AccessLoss::Permission] {
        let mut server = TestServer::new().await;
        let mut stream = begin(&server, CSV).await;
        stream.write_all(b"1\r\nx\r\n").await.unwrap();
        came(&mut server).await;
        server.lost.send(lost).unwrap();
        assert_eq!(end_of(&mut server).await, Event::UploadAbort(UploadAbort::AccessLost(lost)));
    }
}

#[tokio::test]
async fn an_upload_does_not_hold_up_the_stop() {
    let mut server =
        TestServer::with_limits(|limits| limits.stop_timeout = Duration::from_millis(600)).await;
    let mut stream = begin(&server, CSV).await;
    stream.write_all(b"1\r\nx\r\n").await.unwrap();
    came(&mut server).await;
    server.stop.cancel();
    // An upload that is nearly complete may finish.
    stream.write_all(b"1\r\nx\r\n").await.unwrap();
    came(&mut server).await;
    assert_eq!(end_of(&mut server).await, Event::UploadAbort(UploadAbort::ShuttingDown));
    within_5_s(&mut server.ended).await.unwrap().unwrap();
}

#[tokio::test]
async fn one_holder_has_only_so_many_files_under_way() {
    let mut server = TestServer::with_limits(|limits| limits.transfers_per_holder = 1).await;
    let mut stream = begin(&server, CSV).await;
    stream.write_all(b"1\r\nx\r\n").await.unwrap();
    came(&mut server).await;
    let reply = exchange(server.address, &upload(ASSETS, CSV, BODY)).await;
    assert_eq!((reply.status, reply.code().as_str()), (429, "RATE_LIMITED"));
    let other = CSV.replace("ada", "bob");
    assert_eq!(exchange(server.address, &upload(ASSETS, &other, BODY)).await.status, 202);
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    assert_eq!(last(stream).await.status, 202);
    assert_eq!(exchange(server.address, &upload(ASSETS, CSV, BODY)).await.status, 202);
}

#[tokio::test]
async fn only_post_brings_a_file() {
    let server = TestServer::new().await;
    for method in ["GET", "PUT", "DELETE"] {
        let reply = exchange(server.address, &request(method, ASSETS, CSV)).await;
        assert_eq!((reply.status, reply.header("allow")), (405, Some("POST")), "{method}");
        assert_eq!(reply.code(), "VALIDATION");
    }
}
