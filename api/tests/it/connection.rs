//! Connection limits and deadlines.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    harness::{Event, TestServer, within_5_s},
    wire::{connect, connect_from, exchange, next, post, post_and_stay, request},
};

const HELLO: &str = r#"{"query":"{ hello }"}"#;
const ATTACKER: [u8; 4] = [127, 0, 0, 2];

/// Returns true if the server has closed or reset the connection.
async fn closes(stream: &mut tokio::net::TcpStream) -> bool {
    !matches!(within_5_s(stream.read(&mut [0; 1024])).await, Ok(read) if read > 0)
}

#[tokio::test]
async fn one_address_has_only_so_many_connections() {
    let server = TestServer::with_limits(|limits| limits.connections_per_address = 3).await;
    let mut stored = Vec::new();
    for _ in 0..3 {
        let mut stream = connect(server.address).await;
        stream.write_all(&post_and_stay(HELLO)).await.unwrap();
        assert_eq!(next(&mut stream).await.status, 200);
        stored.push(stream);
    }
    assert!(closes(&mut connect(server.address).await).await);
    // Other addresses are not affected, and a released slot can be taken again.
    let mut other = connect_from(ATTACKER, server.address).await;
    other.write_all(&post(HELLO)).await.unwrap();
    assert_eq!(next(&mut other).await.status, 200);
    drop(stored.pop());
    within_5_s(async {
        loop {
            let mut stream = connect(server.address).await;
            let _ = stream.write_all(&post(HELLO)).await; // rejected until the slot is free
            if matches!(stream.read(&mut [0; 16]).await, Ok(16)) {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_trusted_proxy_is_not_counted() {
    let server = TestServer::with(|config| {
        config.limits.connections_per_address = 1;
        config.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    })
    .await;
    let _first = connect(server.address).await;
    let _second = connect(server.address).await;
    assert_eq!(exchange(server.address, &post(HELLO)).await.status, 200);
}

#[tokio::test]
async fn a_dripping_head_is_cut_at_its_deadline() {
    let server =
        TestServer::with_limits(|limits| limits.head_timeout = Duration::from_millis(300)).await;
    let started = Instant::now();
    let (mut reader, mut writer) = connect(server.address).await.into_split();
    let drip = tokio::spawn(async move {
        writer.write_all(b"\r\n\r\nGET / HTTP/1.1\r\n").await.unwrap();
        while writer.write_all(b"X-A: b\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let read = within_5_s(reader.read(&mut [0; 16])).await;
    assert!(!matches!(read, Ok(1..)), "{read:?}");
    assert!(started.elapsed() >= Duration::from_millis(300));
    within_5_s(drip).await.unwrap();
}

#[tokio::test]
async fn a_silent_connection_is_cut_at_the_same_deadline() {
    let server =
        TestServer::with_limits(|limits| limits.head_timeout = Duration::from_millis(100)).await;
    assert!(closes(&mut connect(server.address).await).await);
}

#[tokio::test]
async fn the_next_request_of_a_connection_has_its_own_deadline() {
    let server = TestServer::with_limits(|limits| {
        limits.head_timeout = Duration::from_millis(200);
        limits.idle_timeout = Duration::from_secs(20);
    })
    .await;
    let mut stream = connect(server.address).await;
    for _ in 0..3 {
        stream.write_all(&post_and_stay(HELLO)).await.unwrap();
        assert_eq!(next(&mut stream).await.status, 200);
        // Longer than the head deadline, which does not apply to an idle connection.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    stream.write_all(b"GET").await.unwrap();
    assert!(closes(&mut stream).await);
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let server =
        TestServer::with_limits(|limits| limits.idle_timeout = Duration::from_millis(200)).await;
    let mut stream = connect(server.address).await;
    stream.write_all(&post_and_stay(HELLO)).await.unwrap();
    assert_eq!(next(&mut stream).await.status, 200);
    assert!(closes(&mut stream).await);
}

#[tokio::test]
async fn a_slow_body_is_bounded_by_the_request_not_by_the_head() {
    let server =
        TestServer::with_limits(|limits| limits.head_timeout = Duration::from_millis(200)).await;
    let mut stream = connect(server.address).await;
    let bytes = String::from_utf8(post(HELLO)).unwrap();
    let (head, body) = bytes.split_once("\r\n\r\n").unwrap();
    let head = format!("{head}\r\nExpect: 100-continue\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(next(&mut stream).await.status, 100);
    for byte in body.bytes() {
        stream.write_all(&[byte]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(next(&mut stream).await.status, 200);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut() {
    let server =
        TestServer::with_limits(|limits| limits.idle_timeout = Duration::from_millis(300)).await;
    let asset = request("GET", "/playground/playground.js", "");
    let length = exchange(server.address, &asset).await.body.len();
    let asset = String::from_utf8(asset).unwrap().replace("Connection: close\r\n", "");
    let mut stream = connect(server.address).await;
    // More than the socket buffers of both sides hold.
    let answers = 40;
    stream.write_all(asset.repeat(answers).as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut read = Vec::new();
    let _ = within_5_s(stream.read_to_end(&mut read)).await; // a reset, or an early end
    assert!(read.len() < answers * length, "{} bytes", read.len());
}

#[tokio::test]
async fn five_hundred_drippers_do_not_hurt_a_healthy_client() {
    let server =
        TestServer::with_limits(|limits| limits.head_timeout = Duration::from_secs(3)).await;
    let mut drippers = Vec::new();
    for number in 0..500_u16 {
        // Five addresses, each within its limit, so all connections are accepted.
        let [_, address] = (number / 100 + 2).to_be_bytes();
        let mut stream = connect_from([127, 0, 0, address], server.address).await;
        drippers.push(tokio::spawn(async move {
            while stream.write_all(b"X").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }));
    }
    let mut took = Vec::new();
    for _ in 0..50 {
        let started = Instant::now();
        assert_eq!(exchange(server.address, &post(HELLO)).await.status, 200);
        took.push(started.elapsed());
    }
    // Only the median is checked: the machine may be busy with other tests. The load tests check the tail.
    took.sort();
    assert!(took[took.len() / 2] < Duration::from_millis(500), "{took:?}");
    for dripper in drippers {
        within_5_s(dripper).await.unwrap();
    }
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_work_along() {
    let mut server = TestServer::new().await;
    for body in [r#"{"query":"{ hangs }"}"#, r#"{"query":"query A { a: hangs }"}"#] {
        let mut stream = connect(server.address).await;
        stream.write_all(&post(body)).await.unwrap();
        assert_eq!(within_5_s(server.events.recv()).await, Some(Event::Started));
        let left = Instant::now();
        drop(stream);
        assert_eq!(within_5_s(server.events.recv()).await, Some(Event::Dropped));
        assert!(left.elapsed() < Duration::from_secs(1));
    }
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_504_and_its_work_is_dropped() {
    let mut server =
        TestServer::with_limits(|limits| limits.request_timeout = Duration::from_millis(200)).await;
    let reply = exchange(server.address, &post(r#"{"query":"{ hangs }"}"#)).await;
    assert_eq!((reply.status, reply.code().as_str()), (504, "TIMEOUT"));
    assert_eq!(within_5_s(server.events.recv()).await, Some(Event::Started));
    assert_eq!(within_5_s(server.events.recv()).await, Some(Event::Dropped));
}
