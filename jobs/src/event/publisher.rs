//! Publisher of hints, i.e. notifications without content that rows may have changed. Hints are queued after the
//! commit, from anywhere in the process.

use std::{collections::HashSet, time::Duration};

use domain::base::event::Event;
use serde_json::Value;
use tokio::{sync::mpsc, time::timeout};

use crate::redis::Redis;

/// Redis channel of all hints. A hint is an [`Event`] as a JSON object: `{"org", "kind", "id"}`.
pub const CHANNEL: &str = "sentryops:event";
/// Maximum number of events in the channel, and of unsent events while Redis is unavailable. Further events are dropped
/// and counted.
const BUFFER_EVENTS: usize = 4096;

/// Delay after each batch. The first event is sent immediately, and the events that arrive during the delay are sent as
/// one batch.
const BATCH_DELAY: Duration = Duration::from_millis(5);

/// Maximum delay before unsent events are sent again. A new event ends the delay early.
const RETRY_DELAY: Duration = Duration::from_millis(250);

/// Handle that queues events for sending. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Publisher(mpsc::Sender<Event>);

impl Publisher {
    /// Returns the publisher and a future that sends its events. The future must be spawned. It completes when the last
    /// clone of the publisher is dropped.
    pub fn new(redis: Redis) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, mut receiver) = mpsc::channel(BUFFER_EVENTS);
        let work = async move {
            let mut events = Vec::with_capacity(BUFFER_EVENTS);
            // An event only means "read again", so equal unsent events are sent once.
            let mut unsent = HashSet::new();
            loop {
                let batch = receiver.recv_many(&mut events, BUFFER_EVENTS);
                let is_open = if unsent.is_empty() {
                    batch.await > 0
                } else {
                    timeout(RETRY_DELAY, batch).await.is_ok_and(|count| count > 0)
                        || !receiver.is_closed()
                };
                if !is_open {
                    return;
                }
                for event in events.drain(..) {
                    if unsent.len() < BUFFER_EVENTS {
                        unsent.insert(event);
                    } else {
                        count_lost();
                    }
                }
                send(&redis, &mut unsent).await;
                tokio::time::sleep(BATCH_DELAY).await;
            }
        };
        (Self(sender), work)
    }

    /// Queues events without waiting. Events that do not fit are dropped and counted.
    pub fn publish(&self, events: Vec<Event>) {
        for event in events {
            if self.0.try_send(event).is_err() {
                count_lost();
            }
        }
    }
}

/// Sends events until all are sent, or until Redis fails to accept one.
async fn send(redis: &Redis, unsent: &mut HashSet<Event>) {
    while let Some(event) = unsent.iter().next().cloned() {
        if let Err(error) = redis.publish(CHANNEL, to_json(&event)).await {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(
                error,
                unsent = unsent.len(),
                "cannot publish hints to Redis: retrying within 250 ms"
            );
            return;
        }
        unsent.remove(&event);
    }
}

fn to_json(event: &Event) -> String {
    serde_json::to_value(event).unwrap_or(Value::Null).to_string()
}

fn count_lost() {
    metrics::counter!("sentryops_events_lost_total").increment(1);
}

#[cfg(test)]
mod tests {
    use domain::entity::{AssetId, OrganizationId};

    use super::*;

    #[test]
    fn an_event_carries_ids_and_nothing_else() {
        let (org, id) = (OrganizationId::new(), AssetId::new());
        let text = to_json(&Event::changed(org, id));
        let (org, id) = (org.uuid(), id.uuid());
        assert_eq!(text, format!(r#"{{"id":"{id}","kind":"ast","org":"{org}"}}"#));
    }
}
