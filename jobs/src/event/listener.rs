//! Redis connection over which this process receives hints, i.e. notifications without content that rows may have
//! changed.
//!
//! A Redis subscription needs a connection of its own, and an unresponsive connection looks the same as one without
//! traffic. So the process publishes a heartbeat to itself every second, over the connection on which it publishes
//! hints. Hints count as arriving while the heartbeat arrives. After [`HEARTBEAT_TIMEOUT`] without a heartbeat,
//! subscribers poll and the process connects again, until it succeeds. Given up: receiving hints while this process
//! cannot publish; its own hints would be missing.

use std::{sync::Arc, time::Duration};

use domain::{base::event::Event, fleet::job::Queue};
use fred::{
    clients::SubscriberClient,
    interfaces::{ClientLike, EventInterface, PubsubInterface},
    types::{Builder, Message, config::Config},
};
use tokio::{
    sync::{Notify, broadcast::error::RecvError},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::{
    hub::{HintSubscription, Hub, Topic},
    publisher::CHANNEL,
};
use crate::{
    error::{Error, Result},
    redis::{self, Redis},
};

/// Interval between two heartbeats of the process to itself.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// Time without a heartbeat after which the connection counts as down.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(3);
/// Time limit for connecting and subscribing.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Delay between two connection attempts.
const RECONNECT_DELAY: Duration = Duration::from_millis(500);
/// Maximum number of received messages in the buffer. If the buffer overflows, messages are lost and all subscribers
/// are notified.
const BUFFER_MESSAGES: usize = 4096;
/// Maximum length of a hint in bytes. Longer messages are rejected as malformed.
const MAX_HINT_BYTES: usize = 1024;

/// Handle to the hints of the process: subscribers register here. Cheap to clone.
#[derive(Clone)]
pub struct Listener(Arc<Hub>);

impl Listener {
    /// Returns the listener and a future that receives hints. The future must be spawned, and never completes. `redis`
    /// is the connection on which the process publishes hints.
    ///
    /// # Errors
    /// [`Error::Url`] if the URL cannot be used, [`Error::Redis`] if the system's certificates cannot be read. No error
    /// if Redis is down.
    pub fn new(url: &str, redis: Redis) -> Result<(Self, impl Future<Output = ()> + Send + use<>)> {
        let mut config = redis::config(url)?;
        // There is no reconnect policy. Without `fail_fast`, fred would wait forever for a connection.
        config.fail_fast = true;
        let hub = Arc::new(Hub::new());
        let listener = Self(Arc::clone(&hub));
        let work = async move {
            loop {
                if let Err(error) = listen(&hub, config.clone(), &redis).await {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "cannot receive hints from Redis: subscribers poll Postgres; reconnecting every 500 ms"
                    );
                }
                hub.set_listening(false);
                sleep(RECONNECT_DELAY).await;
            }
        };
        Ok((listener, work))
    }

    /// Returns a listener without a connection, which never receives hints. Its subscribers poll.
    pub fn disconnected() -> Self {
        Self(Arc::new(Hub::new()))
    }

    /// Subscribes to a topic. Subscribe before the first read of the rows. Otherwise a change between the read and the
    /// subscription is missed.
    pub fn subscribe(&self, topic: Topic) -> HintSubscription {
        self.0.subscribe(topic)
    }

    /// Registers the wake flag of a queue fetcher for the lifetime of the process. Every hint about ready jobs of the
    /// queue, in any organization, raises the flag.
    pub fn register_fetcher(&self, queue: Queue, flag: Arc<Notify>) {
        self.0.register_fetcher(queue, flag);
    }

    /// Returns true while the connection receives hints.
    pub fn is_listening(&self) -> bool {
        self.0.is_listening()
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").field("is_listening", &self.is_listening()).finish()
    }
}

/// Receives hints over a new connection, until the connection fails or is unresponsive.
async fn listen(hub: &Hub, config: Config, redis: &Redis) -> Result<()> {
    let client: SubscriberClient = Builder::from_config(config)
        .with_performance_config(|performance| {
            performance.broadcast_channel_capacity = BUFFER_MESSAGES;
        })
        .with_connection_config(|connection| {
            connection.connection_timeout = CONNECT_TIMEOUT;
            connection.internal_command_timeout = CONNECT_TIMEOUT;
            connection.max_command_attempts = 1;
        })
        .build_subscriber_client()
        .map_err(Error::Redis)?;
    let mut messages = client.message_rx();
    let heartbeat_channel = format!("{CHANNEL}:beat:{}", Uuid::now_v7());
    let subscribed = async {
        let connection = AbortOnDropHandle::new(client.init().await?);
        client.subscribe(CHANNEL).await?;
        client.subscribe(heartbeat_channel.as_str()).await?;
        Ok(connection)
    };
    let _connection = match timeout(CONNECT_TIMEOUT, subscribed).await {
        Ok(subscribed) => subscribed.map_err(Error::Redis)?,
        Err(_elapsed) => return Ok(()),
    };
    let mut heartbeats = interval(HEARTBEAT_INTERVAL);
    heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heartbeat_at = Instant::now();
    loop {
        tokio::select! {
            message = messages.recv() => match message {
                Ok(message) if *message.channel == *heartbeat_channel => {
                    heartbeat_at = Instant::now();
                    hub.set_listening(true);
                }
                Ok(message) => handle_message(hub, &message),
                Err(RecvError::Lagged(_)) => hub.notify_all(),
                Err(RecvError::Closed) => return Ok(()),
            },
            _ = heartbeats.tick() => {
                if heartbeat_at.elapsed() > HEARTBEAT_TIMEOUT {
                    return Ok(());
                }
                redis.publish(&heartbeat_channel, String::new()).await?;
            }
        }
    }
}

/// Parses a message and passes it to the hub as a hint. Every client of the Redis server can publish on the channel, so
/// a malformed message is counted and dropped. A forged hint costs one needless read.
fn handle_message(hub: &Hub, message: &Message) {
    let text = message.value.as_bytes().filter(|text| text.len() <= MAX_HINT_BYTES);
    match text.map(serde_json::from_slice::<Event>) {
        Some(Ok(event)) => hub.notify(&event),
        Some(Err(_)) | None => {
            metrics::counter!("sentryops_events_malformed_total").increment(1);
        }
    }
}
