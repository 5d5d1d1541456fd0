//! Sending hints: from anywhere in the process, after the commit.

use std::{collections::HashSet, time::Duration};

use domain::base::event::Event;
use serde_json::Value;
use tokio::{sync::mpsc, time::timeout};

use crate::redis::Redis;

/// The channel; an event is a JSON object `{"org", "kind", "id"}`.
pub const CHANNEL: &str = "sentryops:event";
/// Events that may wait for Redis.
const WAITING: usize = 4096;

/// Between two rounds of sending: the first hint goes at once, the many behind it together.
const APART: Duration = Duration::from_millis(5);

/// When Redis took none, it is asked again after this time.
const AGAIN: Duration = Duration::from_millis(250);

/// Takes events from anywhere in the process.
#[derive(Debug, Clone)]
pub struct Publisher(mpsc::Sender<Event>);

impl Publisher {
    /// The publisher, and the work of sending what it takes: to be spawned, and over when the last clone is dropped.
    pub fn new(redis: Redis) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, mut waiting) = mpsc::channel(WAITING);
        let work = async move {
            let mut events = Vec::with_capacity(WAITING);
            // A hint says "read again": twice in a moment is once.
            let mut unsent = HashSet::new();
            loop {
                let received = waiting.recv_many(&mut events, WAITING);
                let is_open = if unsent.is_empty() {
                    received.await > 0
                } else {
                    timeout(AGAIN, received).await.is_ok_and(|received| received > 0)
                        || !waiting.is_closed()
                };
                if !is_open {
                    return;
                }
                for event in events.drain(..) {
                    if unsent.len() < WAITING {
                        unsent.insert(event);
                    } else {
                        lost();
                    }
                }
                send(&redis, &mut unsent).await;
                tokio::time::sleep(APART).await;
            }
        };
        (Self(sender), work)
    }

    /// Queues events; never waits.
    pub fn publish(&self, events: Vec<Event>) {
        for event in events {
            if self.0.try_send(event).is_err() {
                lost();
            }
        }
    }
}

/// Sends until all are sent, or Redis does not take one.
async fn send(redis: &Redis, unsent: &mut HashSet<Event>) {
    while let Some(event) = unsent.iter().next().cloned() {
        if let Err(error) = redis.publish(CHANNEL, text(&event)).await {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, unsent = unsent.len(), "hints cannot be sent now");
            return;
        }
        unsent.remove(&event);
    }
}

fn text(event: &Event) -> String {
    serde_json::to_value(event).unwrap_or(Value::Null).to_string()
}

fn lost() {
    metrics::counter!("sentryops_events_lost_total").increment(1);
}

#[cfg(test)]
mod tests {
    use domain::entity::{AssetId, OrganizationId};

    use super::*;

    #[test]
    fn an_event_carries_ids_and_nothing_else() {
        let (org, id) = (OrganizationId::new(), AssetId::new());
        let text = text(&Event::changed(org, id));
        let (org, id) = (org.uuid(), id.uuid());
        assert_eq!(text, format!(r#"{{"id":"{id}","kind":"ast","org":"{org}"}}"#));
    }
}
