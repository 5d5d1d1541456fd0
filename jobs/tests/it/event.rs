//! Hints: delivery to listeners, and behaviour while Redis is unavailable.

use std::time::Duration;

use domain::{
    Id,
    base::event::Event,
    entity::{AssetId, OrganizationId},
};
use fred::{
    clients::SubscriberClient,
    interfaces::{ClientLike, EventInterface, PubsubInterface},
    types::{Builder, config::Config},
};
use jobs::event::{CHANNEL, HintSubscription, Listener, PollInterval, Publisher, Topic};
use tokio::time::timeout;

use crate::server::{Server, eventually, ready, shared, shared_url};

#[tokio::test]
async fn a_published_event_reaches_a_listener() {
    let config = Config::from_url(&shared_url()).unwrap();
    let listener: SubscriberClient =
        Builder::from_config(config).build_subscriber_client().unwrap();
    listener.init().await.unwrap();
    let mut messages = listener.message_rx();
    listener.subscribe(CHANNEL).await.unwrap();

    let (publisher, work) = Publisher::new(shared().await);
    let work = tokio::spawn(work);
    let event = Event::changed(OrganizationId::new(), AssetId::new());
    publisher.publish(vec![event.clone()]);

    let ours = async {
        loop {
            let text: String = messages.recv().await.unwrap().value.convert().unwrap();
            // Other tests share the channel.
            if serde_json::from_str::<Event>(&text).unwrap() == event {
                return;
            }
        }
    };
    timeout(Duration::from_secs(10), ours).await.unwrap();
    drop(publisher);
    timeout(Duration::from_secs(10), work).await.unwrap().unwrap();
}

#[tokio::test]
async fn nobody_waits_while_redis_is_away() {
    let server = Server::not_started("secret");
    let (publisher, work) = Publisher::new(jobs::Redis::open(&server.url()).unwrap());
    let work = tokio::spawn(work);
    let event = Event::changed(OrganizationId::new(), AssetId::new());
    publisher.publish(vec![event; 10_000]);
    work.abort();
}

const KINDS: &[&str] = &["ast"];
/// Poll interval that never passes within a test: only a hint ends the wait.
const NEVER: PollInterval =
    PollInterval { listening: Duration::from_hours(1), not_listening: Duration::from_hours(1) };

async fn wait_for_hint(hints: &mut HintSubscription) {
    timeout(Duration::from_secs(10), hints.next(NEVER))
        .await
        .expect("a hint arrives within ten seconds");
}

/// A process that publishes and receives hints.
struct Process {
    publisher: Publisher,
    listener: Listener,
    _work: [tokio_util::task::AbortOnDropHandle<()>; 2],
}

impl Process {
    async fn at(url: &str) -> Self {
        let redis = ready(url).await;
        let (publisher, publishing) = Publisher::new(redis.clone());
        let (listener, listening) = Listener::new(url, redis).unwrap();
        let work = [tokio::spawn(publishing), tokio::spawn(listening)];
        let work = work.map(tokio_util::task::AbortOnDropHandle::new);
        eventually("hints arrive", async || listener.is_listening()).await;
        Self { publisher, listener, _work: work }
    }
}

#[tokio::test]
async fn a_hint_is_heard_in_another_process() {
    let (here, there) = (Process::at(&shared_url()).await, Process::at(&shared_url()).await);
    let (org, id) = (OrganizationId::new(), AssetId::new());
    let mut hints = there.listener.subscribe(Topic::row(org, KINDS, id.uuid()));
    here.publisher.publish(vec![Event::changed(org, id)]);
    wait_for_hint(&mut hints).await;
}

#[tokio::test]
async fn what_is_no_hint_is_nothing() {
    let process = Process::at(&shared_url()).await;
    let (org, id) = (OrganizationId::new(), AssetId::new());
    let mut hints = process.listener.subscribe(Topic::all(org, KINDS));
    let config = Config::from_url(&shared_url()).unwrap();
    let forger = Builder::from_config(config).build().unwrap();
    forger.init().await.unwrap();
    let (org_id, long) = (org.uuid(), "x".repeat(10_000));
    for message in [
        "",
        "null",
        "{",
        "\u{0}",
        r#"{"org":"x","kind":"ast","id":"y"}"#,
        &format!(r#"{{"org":"{org_id}","kind":"ast"}}"#),
        &format!(r#"{{"org":"{org_id}","kind":"{long}","id":"{org_id}"}}"#),
    ] {
        let _: i64 = forger.publish(CHANNEL, message).await.unwrap();
    }
    let quiet = timeout(Duration::from_millis(200), hints.next(NEVER)).await;
    assert!(quiet.is_err());
    process.publisher.publish(vec![Event::changed(org, id)]);
    wait_for_hint(&mut hints).await;
}

#[tokio::test]
async fn while_redis_is_away_subscribers_poll_and_are_told_when_it_is_back() {
    let mut server = Server::start();
    let process = Process::at(&server.url()).await;
    let mut hints = process.listener.subscribe(Topic::all(Id::new(), KINDS));
    server.kill();
    eventually("hints no longer arrive", async || !process.listener.is_listening()).await;
    let interval = PollInterval { not_listening: Duration::from_millis(1), ..NEVER };
    timeout(Duration::from_secs(1), hints.next(interval)).await.expect("polled");
    server.start_again();
    wait_for_hint(&mut hints).await;
    assert!(process.listener.is_listening());
}

#[tokio::test]
async fn a_mute_redis_counts_as_away() {
    let server = Server::start();
    let process = Process::at(&server.url()).await;
    server.stop();
    eventually("hints no longer arrive", async || !process.listener.is_listening()).await;
    server.resume();
    eventually("hints arrive", async || process.listener.is_listening()).await;
}
