//! Events reach who listens, and nobody waits for them.

use std::time::Duration;

use domain::{Id, asset::Asset, event::Event, organization::Organization};
use fred::{
    clients::SubscriberClient,
    interfaces::{ClientLike, EventInterface, PubsubInterface},
    types::{Builder, config::Config},
};
use jobs::event::{CHANNEL, Publisher};
use tokio::time::timeout;

use crate::server::{Server, shared, shared_url};

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
    let event = Event::changed(Id::<Organization>::new(), Id::<Asset>::new());
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
    let server = Server::absent("secret");
    let (publisher, work) = Publisher::new(jobs::Redis::open(&server.url()).unwrap());
    let work = tokio::spawn(work);
    let event = Event::changed(Id::<Organization>::new(), Id::<Asset>::new());
    publisher.publish(vec![event; 10_000]);
    work.abort();
}
