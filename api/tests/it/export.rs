//! Exports: streamed files.

use graphql::AccessLoss;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    harness::{Event, TestServer, within_5_s},
    wire::{Reply, connect, exchange, request},
};

const ASSETS: &str = "/export/assets.csv";

async fn export(server: &TestServer, path: &str, bearer: &str) -> Reply {
    let headers = format!("Authorization: Bearer {bearer}\r\n");
    exchange(server.address, &request("GET", path, &headers)).await
}

/// Last chunk of a chunked body. A body without it is recognisably incomplete.
const WHOLE: &str = "0\r\n\r\n";

#[tokio::test]
async fn a_file_comes_as_an_attachment_page_by_page() {
    let server = TestServer::new().await;
    for (path, name) in [(ASSETS, "assets.csv"), ("/export/dependencies.csv", "dependencies.csv")] {
        let reply = export(&server, path, "ada").await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("content-type"), Some("text/csv; charset=utf-8; header=present"));
        let disposition = format!("attachment; filename=\"{name}\"");
        assert_eq!(reply.header("content-disposition"), Some(&*disposition));
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert!((0..3).all(|page| reply.body.contains(&format!("page {page}\r\n"))), "{reply:?}");
        assert!(reply.body.ends_with(WHOLE));
    }
}

#[tokio::test]
async fn a_page_that_fails_breaks_the_connection() {
    let server = TestServer::new().await;
    let mut stream = connect(server.address).await;
    let bytes = request("GET", ASSETS, "Authorization: Bearer fails\r\n");
    stream.write_all(&bytes).await.unwrap();
    let mut file = Vec::new();
    let _ = within_5_s(stream.read_to_end(&mut file)).await; // the connection may be reset
    let file = String::from_utf8(file).unwrap();
    assert!(!file.ends_with(WHOLE) && !file.contains("secret"), "{file}");
}

#[tokio::test]
async fn an_export_ends_with_the_session_and_is_not_whole() {
    let mut server = TestServer::new().await;
    let mut stream = connect(server.address).await;
    let bytes = request("GET", ASSETS, "Authorization: Bearer endless\r\n");
    stream.write_all(&bytes).await.unwrap();
    assert_eq!(within_5_s(server.events.recv()).await, Some(Event::PageProduced));
    server.lost.send(AccessLoss::Access).unwrap();
    let mut file = Vec::new();
    let _ = within_5_s(stream.read_to_end(&mut file)).await; // the connection may be reset
    assert!(file.starts_with(b"HTTP/1.1 200") && !file.ends_with(WHOLE.as_bytes()));
}

#[tokio::test]
async fn who_does_not_read_gets_no_more_pages_made() {
    let mut server = TestServer::new().await;
    let mut stream = connect(server.address).await;
    let bytes = request("GET", ASSETS, "Authorization: Bearer endless\r\n");
    stream.write_all(&bytes).await.unwrap();
    let mut made = 0;
    // Wait until the socket buffers of both sides are full.
    while let Ok(event) =
        tokio::time::timeout(std::time::Duration::from_millis(300), server.events.recv()).await
    {
        assert_eq!(event, Some(Event::PageProduced));
        made += 1;
        assert!(made < 1_000, "64 MiB were made for nobody");
    }
    drop(stream);
    let ended = async { while server.events.recv().await != Some(Event::Dropped) {} };
    within_5_s(ended).await;
}

#[tokio::test]
async fn only_those_who_may_get_a_file() {
    let server = TestServer::new().await;
    for (bearer, status, code) in
        [("refuse-UNAUTHENTICATED", 401, "UNAUTHENTICATED"), ("forbid", 403, "FORBIDDEN")]
    {
        let reply = export(&server, ASSETS, bearer).await;
        assert_eq!((reply.status, reply.code().as_str()), (status, code));
    }
    let reply = exchange(server.address, &request("GET", ASSETS, "")).await;
    assert_eq!((reply.status, reply.header("www-authenticate")), (401, Some("Bearer")));
    assert_eq!(reply.header("content-type"), Some("application/json; charset=utf-8"));
    let head = request("HEAD", ASSETS, "Authorization: Bearer ada\r\n");
    let head = exchange(server.address, &head).await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let reply = exchange(server.address, &request("POST", ASSETS, "")).await;
    assert_eq!((reply.status, reply.header("allow")), (405, Some("GET, HEAD")));
}
