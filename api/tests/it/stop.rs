//! Shutdown: idle connections close, requests in flight finish.

use std::time::Duration;

use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    harness::{Event, TestServer, within_5_s},
    wire::{connect, last, next, post_and_stay},
};

#[tokio::test]
async fn what_is_in_flight_is_finished_and_nothing_new_is_let_in() {
    let mut server = TestServer::new().await;
    let mut idle = connect(server.address).await;
    idle.write_all(&post_and_stay(r#"{"query":"{ hello }"}"#)).await.unwrap();
    assert_eq!(next(&mut idle).await.status, 200);
    let mut busy = connect(server.address).await;
    busy.write_all(&post_and_stay(r#"{"query":"{ rests(ms: 500) }"}"#)).await.unwrap();
    assert_eq!(within_5_s(server.events.recv()).await, Some(Event::Started));

    server.stop.cancel();
    let reply = last(busy).await; // answered, then closed
    assert_eq!((reply.status, reply.body.as_str()), (200, r#"{"data":{"rests":true}}"#));
    within_5_s(&mut server.ended).await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn what_does_not_end_in_time_is_cut() {
    let mut server =
        TestServer::with_limits(|limits| limits.stop_timeout = Duration::from_millis(200)).await;
    let mut busy = connect(server.address).await;
    busy.write_all(&post_and_stay(r#"{"query":"{ hangs }"}"#)).await.unwrap();
    assert_eq!(within_5_s(server.events.recv()).await, Some(Event::Started));
    server.stop.cancel();
    within_5_s(&mut server.ended).await.unwrap().unwrap();
    assert_eq!(within_5_s(server.events.recv()).await, Some(Event::Dropped));
}
