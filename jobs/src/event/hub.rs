//! Registry of the subscribers in this process. It matches hints to subscribers by topic. (A hint is a notification
//! without content that rows may have changed.)
//!
//! A hint means only "read the rows again", so a subscriber has one wake flag instead of a queue. All hints that arrive
//! before the subscriber reads again set the same flag. A slow subscriber reads once and is up to date, and the
//! publisher never waits for a subscriber.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use domain::{base::event::Event, entity::OrganizationId, fleet::job::Queue};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

/// Set of rows for which a subscriber receives hints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Id of the organization that owns the rows.
    pub org: Uuid,
    /// Kinds of rows, as in [`Event::kind`].
    pub kinds: &'static [&'static str],
    /// Id of a single row of these kinds; `None` for all rows.
    pub id: Option<Uuid>,
}

impl Topic {
    /// Returns the topic of all rows of these kinds.
    pub const fn all(org: OrganizationId, kinds: &'static [&'static str]) -> Self {
        Self { org: org.uuid(), kinds, id: None }
    }

    /// Returns the topic of a single row of one of these kinds.
    pub const fn row(org: OrganizationId, kinds: &'static [&'static str], id: Uuid) -> Self {
        Self { org: org.uuid(), kinds, id: Some(id) }
    }

    fn matches(&self, event: &Event) -> bool {
        self.org == event.org
            && self.kinds.contains(&event.kind.as_str())
            && self.id.is_none_or(|id| id == event.id)
    }
}

/// Poll interval of a subscriber: the time after which the subscriber reads its rows again although no hint arrived.
/// The default is 5 s while hints arrive, and 2 s while the connection is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PollInterval {
    /// Interval while hints arrive. Polling then finds only changes whose hint was lost.
    pub listening: Duration,
    /// Interval while the connection is down. Polling then finds all changes.
    pub not_listening: Duration,
}

impl Default for PollInterval {
    fn default() -> Self {
        Self { listening: Duration::from_secs(5), not_listening: Duration::from_secs(2) }
    }
}

type Subscribers = HashMap<Uuid, HashMap<u64, (Topic, Arc<Notify>)>>;

/// Wake flags of the subscribers and of the queue fetchers in this process, and whether hints arrive.
pub(super) struct Hub {
    /// Number of the latest subscriber, and the subscribers by organization and number.
    subscribers: Mutex<(u64, Subscribers)>,
    /// Wake flags of the fetchers, by the event kind of their queue ([`Event::jobs_ready_kind`]). A hint about ready
    /// jobs of any organization raises them.
    fetcher_flags: Mutex<Vec<(String, Arc<Notify>)>>,
    /// True while the connection to Redis receives hints.
    is_listening: watch::Sender<bool>,
}

impl Hub {
    pub(super) fn new() -> Self {
        Self {
            subscribers: Mutex::default(),
            fetcher_flags: Mutex::default(),
            is_listening: watch::Sender::new(false),
        }
    }

    /// Registers the wake flag of a queue fetcher for the lifetime of the process. Every hint about ready jobs of the
    /// queue raises the flag.
    pub(super) fn register_fetcher(&self, queue: Queue, flag: Arc<Notify>) {
        let kind = Event::jobs_ready_kind(queue);
        self.fetcher_flags.lock().unwrap_or_else(PoisonError::into_inner).push((kind, flag));
    }

    pub(super) fn subscribe(self: &Arc<Self>, topic: Topic) -> HintSubscription {
        let flag = Arc::new(Notify::new());
        let mut subscribers = self.lock();
        subscribers.0 += 1;
        let key = subscribers.0;
        let organization_subscribers = subscribers.1.entry(topic.org).or_default();
        organization_subscribers.insert(key, (topic.clone(), Arc::clone(&flag)));
        drop(subscribers);
        let listening = self.is_listening.subscribe();
        HintSubscription { hub: Arc::clone(self), key, topic, flag, listening }
    }

    /// Raises the flags of the fetchers and subscribers whose queue or topic matches the hint.
    pub(super) fn notify(&self, event: &Event) {
        for (kind, flag) in self.fetcher_flags.lock().unwrap_or_else(PoisonError::into_inner).iter()
        {
            if *kind == event.kind {
                flag.notify_one();
            }
        }
        if let Some(organization_subscribers) = self.lock().1.get(&event.org) {
            for (topic, flag) in organization_subscribers.values() {
                if topic.matches(event) {
                    flag.notify_one();
                }
            }
        }
    }

    /// Raises the flags of all subscribers, because hints were lost and any row may have changed. Fetchers are not
    /// woken: they poll every second anyway.
    pub(super) fn notify_all(&self) {
        for (_, flag) in self.lock().1.values().flat_map(HashMap::values) {
            flag.notify_one();
        }
    }

    pub(super) fn is_listening(&self) -> bool {
        *self.is_listening.borrow()
    }

    /// Records whether hints arrive. When hints arrive again, notifies all subscribers, because the hints of the
    /// interruption are lost.
    pub(super) fn set_listening(&self, is_listening: bool) {
        let changed = self
            .is_listening
            .send_if_modified(|current| std::mem::replace(current, is_listening) != is_listening);
        if changed && is_listening {
            self.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, (u64, Subscribers)> {
        // The maps hold only flags, so a panic in another thread cannot leave them half written.
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Subscription to the hints of a topic. Dropping it unsubscribes.
pub struct HintSubscription {
    hub: Arc<Hub>,
    key: u64,
    topic: Topic,
    flag: Arc<Notify>,
    listening: watch::Receiver<bool>,
}

impl HintSubscription {
    /// Waits until a hint arrives or the poll interval has passed. Returns immediately if a hint has arrived since the
    /// last call. The caller then reads the rows again.
    pub async fn next(&mut self, interval: PollInterval) {
        let waiting = async {
            loop {
                let is_listening = *self.listening.borrow_and_update();
                let time = if is_listening { interval.listening } else { interval.not_listening };
                tokio::select! {
                    () = tokio::time::sleep(time) => return,
                    // The connection went down or up: wait again, with the other interval.
                    Ok(()) = self.listening.changed() => {}
                }
            }
        };
        tokio::select! {
            () = self.flag.notified() => {}
            () = waiting => {}
        }
    }
}

impl std::fmt::Debug for HintSubscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HintSubscription").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl Drop for HintSubscription {
    fn drop(&mut self) {
        let mut subscribers = self.hub.lock();
        if let Some(organization_subscribers) = subscribers.1.get_mut(&self.topic.org) {
            organization_subscribers.remove(&self.key);
            if organization_subscribers.is_empty() {
                subscribers.1.remove(&self.topic.org);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::{Id, entity::AssetId};
    use futures_util::FutureExt;

    use super::*;

    const NEVER: PollInterval =
        PollInterval { listening: Duration::from_hours(1), not_listening: Duration::from_hours(1) };

    fn is_notified(hints: &mut HintSubscription) -> bool {
        hints.next(NEVER).now_or_never().is_some()
    }

    #[tokio::test]
    async fn a_hint_reaches_whom_it_concerns_and_melts_with_others() {
        let hub = Arc::new(Hub::new());
        let (org, other) = (OrganizationId::new(), OrganizationId::new());
        let id = AssetId::new();
        let mut all = hub.subscribe(Topic::all(org, &["run", "ast"]));
        let mut row = hub.subscribe(Topic::row(org, &["ast"], id.uuid()));
        let mut another = hub.subscribe(Topic::row(org, &["ast"], AssetId::new().uuid()));
        let mut kind = hub.subscribe(Topic::all(org, &["run"]));
        let mut foreign = hub.subscribe(Topic::all(other, &["ast"]));
        for _ in 0..10_000 {
            hub.notify(&Event::changed(org, id));
        }
        assert!(is_notified(&mut all) && is_notified(&mut row));
        assert!(!is_notified(&mut all), "once is enough");
        assert!(
            !is_notified(&mut another) && !is_notified(&mut kind) && !is_notified(&mut foreign)
        );
        hub.set_listening(true);
        assert!(is_notified(&mut another) && is_notified(&mut kind) && is_notified(&mut foreign));
        hub.set_listening(true);
        assert!(!is_notified(&mut another));
    }

    #[tokio::test]
    async fn without_hints_the_wait_is_as_long_as_the_pace_says() {
        let hub = Arc::new(Hub::new());
        let mut hints = hub.subscribe(Topic::all(Id::new(), &[]));
        let soon = Duration::from_millis(1);
        hints.next(PollInterval { not_listening: soon, ..NEVER }).await;
        hub.set_listening(true);
        assert!(is_notified(&mut hints));
        hints.next(PollInterval { listening: soon, ..NEVER }).await;
        // The connection goes down during the wait.
        let interval = PollInterval { not_listening: soon, ..NEVER };
        tokio::join!(hints.next(interval), async { hub.set_listening(false) });
    }

    #[test]
    fn whoever_leaves_leaves_nothing_behind() {
        let hub = Arc::new(Hub::new());
        drop(hub.subscribe(Topic::all(Id::new(), &[])));
        assert!(hub.lock().1.is_empty());
    }
}
