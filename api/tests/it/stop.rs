//! Stopping.

use std::time::Duration;

use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    harness::{Edge, Event, soon},
    wire::{connect, last, next, post_and_stay},
};

#[tokio::test]
async fn what_is_in_flight_is_finished_and_nothing_new_is_let_in() {
    let mut edge = Edge::new().await;
    let mut idle = connect(edge.address).await;
    idle.write_all(&post_and_stay(r#"{"query":"{ hello }"}"#)).await.unwrap();
    assert_eq!(next(&mut idle).await.status, 200);
    let mut busy = connect(edge.address).await;
    busy.write_all(&post_and_stay(r#"{"query":"{ rests(ms: 500) }"}"#)).await.unwrap();
    assert_eq!(soon(edge.events.recv()).await, Some(Event::Started));

    edge.stop.cancel();
    let reply = last(busy).await; // answered, then closed
    assert_eq!((reply.status, reply.body.as_str()), (200, r#"{"data":{"rests":true}}"#));
    soon(&mut edge.ended).await.unwrap().unwrap();
    assert!(TcpStream::connect(edge.address).await.is_err());
}

#[tokio::test]
async fn what_does_not_end_in_time_is_cut() {
    let mut edge = Edge::hurried(|limits| limits.stop_timeout = Duration::from_millis(200)).await;
    let mut busy = connect(edge.address).await;
    busy.write_all(&post_and_stay(r#"{"query":"{ hangs }"}"#)).await.unwrap();
    assert_eq!(soon(edge.events.recv()).await, Some(Event::Started));
    edge.stop.cancel();
    soon(&mut edge.ended).await.unwrap().unwrap();
    assert_eq!(soon(edge.events.recv()).await, Some(Event::Dropped));
}
