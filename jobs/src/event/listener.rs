//! The one connection on which a process hears hints.
//!
//! Redis keeps a subscription on a connection of its own, and a mute one looks like a quiet one. So the process says
//! something to itself every second, over the connection that it publishes with: hints arrive if that arrives. Without it
//! for [`DEAF_AFTER`] subscribers poll, and the connection is replaced, for ever. Given up: hints while only publishing
//! is broken; they would be half of the truth.

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
    hub::{Hints, Hub, Topic},
    publisher::CHANNEL,
};
use crate::{
    error::{Error, Result},
    redis::{self, Redis},
};

/// How often the process says something to itself.
const BEAT: Duration = Duration::from_secs(1);
/// How long that may not arrive before hints count as lost.
const DEAF_AFTER: Duration = Duration::from_secs(3);
/// How long connecting and subscribing may take.
const CONNECT: Duration = Duration::from_secs(2);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(500);
/// Messages that may wait for us; a lag past that tells everybody to read again.
const WAITING: usize = 4096;
/// No hint of ours is longer.
const LONGEST: usize = 1024;

/// Hears hints for the whole process; cheap to clone.
#[derive(Clone)]
pub struct Listener(Arc<Hub>);

impl Listener {
    /// The listener, and the work of listening: to be spawned, and never over. `redis` is what the process publishes with.
    ///
    /// # Errors
    /// [`Error::Url`] if the URL cannot be used. Never because Redis is down.
    pub fn new(url: &str, redis: Redis) -> Result<(Self, impl Future<Output = ()> + Send + use<>)> {
        let mut config = redis::config(url)?;
        // Without a policy to try again by, fred would otherwise wait for ever.
        config.fail_fast = true;
        let hub = Arc::new(Hub::new());
        let listener = Self(Arc::clone(&hub));
        let work = async move {
            loop {
                if let Err(error) = listen(&hub, config.clone(), &redis).await {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "hints are not heard"
                    );
                }
                hub.set_listening(false);
                sleep(PAUSE).await;
            }
        };
        Ok((listener, work))
    }

    /// Hears nothing, ever: who subscribes here polls.
    pub fn deaf() -> Self {
        Self(Arc::new(Hub::new()))
    }

    /// A place among those who hear; take it before the first look at the rows, or a change in between is missed.
    pub fn subscribe(&self, topic: Topic) -> Hints {
        self.0.subscribe(topic)
    }

    /// Raises this flag for as long as the process lives whenever jobs are ready in the queue, whoever's they are.
    pub fn wake(&self, queue: Queue, flag: Arc<Notify>) {
        self.0.wake(queue, flag);
    }

    /// Whether hints arrive.
    pub fn is_listening(&self) -> bool {
        self.0.is_listening()
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").field("is_listening", &self.is_listening()).finish()
    }
}

/// One connection, until it is mute or broken.
async fn listen(hub: &Hub, config: Config, redis: &Redis) -> Result<()> {
    let client: SubscriberClient = Builder::from_config(config)
        .with_performance_config(|performance| performance.broadcast_channel_capacity = WAITING)
        .with_connection_config(|connection| {
            connection.connection_timeout = CONNECT;
            connection.internal_command_timeout = CONNECT;
            connection.max_command_attempts = 1;
        })
        .build_subscriber_client()
        .map_err(Error::Redis)?;
    let mut messages = client.message_rx();
    let beat = format!("{CHANNEL}:beat:{}", Uuid::now_v7());
    let subscribed = async {
        let connection = AbortOnDropHandle::new(client.init().await?);
        client.subscribe(CHANNEL).await?;
        client.subscribe(beat.as_str()).await?;
        Ok(connection)
    };
    let _connection = match timeout(CONNECT, subscribed).await {
        Ok(subscribed) => subscribed.map_err(Error::Redis)?,
        Err(_elapsed) => return Ok(()),
    };
    let mut beats = interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard_at = Instant::now();
    loop {
        tokio::select! {
            message = messages.recv() => match message {
                Ok(message) if *message.channel == *beat => {
                    heard_at = Instant::now();
                    hub.set_listening(true);
                }
                Ok(message) => hear(hub, &message),
                Err(RecvError::Lagged(_)) => hub.notify_all(),
                Err(RecvError::Closed) => return Ok(()),
            },
            _ = beats.tick() => {
                if heard_at.elapsed() > DEAF_AFTER {
                    return Ok(());
                }
                redis.publish(&beat, String::new()).await?;
            }
        }
    }
}

/// Anybody who reaches Redis can write anything there: what is no hint is nothing, and a forged one costs a read.
fn hear(hub: &Hub, message: &Message) {
    let text = message.value.as_bytes().filter(|text| text.len() <= LONGEST);
    match text.map(serde_json::from_slice::<Event>) {
        Some(Ok(event)) => hub.notify(&event),
        Some(Err(_)) | None => {
            metrics::counter!("sentryops_events_malformed_total").increment(1);
        }
    }
}
