//! Who in the process hears of what: hints are sorted to subscribers here, and melt together while nobody looks.
//!
//! A hint says no more than "read again", so a subscriber has one flag instead of a queue: ten thousand hints take the
//! memory of one, a subscriber that lags reads once and has them all, and nobody ever waits for it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use domain::{base::event::Event, entity::OrganizationId, fleet::job::Queue};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

/// What a subscriber wants to hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Whose rows.
    pub org: Uuid,
    /// The kinds of rows, as [`Event::kind`] has them.
    pub kinds: &'static [&'static str],
    /// One row of these kinds; all of them without it.
    pub id: Option<Uuid>,
}

impl Topic {
    /// All rows of these kinds.
    pub const fn all(org: OrganizationId, kinds: &'static [&'static str]) -> Self {
        Self { org: org.uuid(), kinds, id: None }
    }

    /// One row.
    pub const fn row(org: OrganizationId, kinds: &'static [&'static str], id: Uuid) -> Self {
        Self { org: org.uuid(), kinds, id: Some(id) }
    }

    fn concerns(&self, event: &Event) -> bool {
        self.org == event.org
            && self.kinds.contains(&event.kind.as_str())
            && self.id.is_none_or(|id| id == event.id)
    }
}

/// How long a subscriber waits for a hint before it reads again without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// While hints arrive: only what Redis lost in between is found this way.
    pub listening: Duration,
    /// While they do not.
    pub deaf: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { listening: Duration::from_secs(5), deaf: Duration::from_secs(2) }
    }
}

type Subscribers = HashMap<Uuid, HashMap<u64, (Topic, Arc<Notify>)>>;

/// The subscribers of a process.
pub(super) struct Hub {
    subscribers: Mutex<(u64, Subscribers)>,
    /// Who takes from which queue, whoever's jobs are ready.
    takers: Mutex<Vec<(String, Arc<Notify>)>>,
    is_listening: watch::Sender<bool>,
}

impl Hub {
    pub(super) fn new() -> Self {
        Self {
            subscribers: Mutex::default(),
            takers: Mutex::default(),
            is_listening: watch::Sender::new(false),
        }
    }

    /// Raises this flag for as long as the process lives whenever jobs are ready in the queue.
    pub(super) fn wake(&self, queue: Queue, flag: Arc<Notify>) {
        let kind = Event::ready_kind(queue);
        self.takers.lock().unwrap_or_else(PoisonError::into_inner).push((kind, flag));
    }

    pub(super) fn subscribe(self: &Arc<Self>, topic: Topic) -> Hints {
        let flag = Arc::new(Notify::new());
        let mut subscribers = self.lock();
        subscribers.0 += 1;
        let key = subscribers.0;
        let of_org = subscribers.1.entry(topic.org).or_default();
        of_org.insert(key, (topic.clone(), Arc::clone(&flag)));
        drop(subscribers);
        let listening = self.is_listening.subscribe();
        Hints { hub: Arc::clone(self), key, topic, flag, listening }
    }

    /// Passes a hint on to whom it concerns.
    pub(super) fn notify(&self, event: &Event) {
        for (kind, flag) in self.takers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if *kind == event.kind {
                flag.notify_one();
            }
        }
        if let Some(of_org) = self.lock().1.get(&event.org) {
            for (topic, flag) in of_org.values() {
                if topic.concerns(event) {
                    flag.notify_one();
                }
            }
        }
    }

    /// Tells every subscriber that something may have changed: hints were lost. Who takes jobs looks each second anyway.
    pub(super) fn notify_all(&self) {
        for (_, flag) in self.lock().1.values().flat_map(HashMap::values) {
            flag.notify_one();
        }
    }

    pub(super) fn is_listening(&self) -> bool {
        *self.is_listening.borrow()
    }

    /// RuleText whether hints arrive; what came while they did not is lost, so all are told when they arrive again.
    pub(super) fn set_listening(&self, is_listening: bool) {
        let changed = self
            .is_listening
            .send_if_modified(|current| std::mem::replace(current, is_listening) != is_listening);
        if changed && is_listening {
            self.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, (u64, Subscribers)> {
        // Maps of flags: a panic elsewhere cannot leave them half written.
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A subscriber's place; given back when dropped.
pub struct Hints {
    hub: Arc<Hub>,
    key: u64,
    topic: Topic,
    flag: Arc<Notify>,
    listening: watch::Receiver<bool>,
}

impl Hints {
    /// Waits until the rows should be read again: for a hint that came since the last call, or as long as `pace` says.
    pub async fn next(&mut self, pace: Pace) {
        let waiting = async {
            loop {
                let is_listening = *self.listening.borrow_and_update();
                let time = if is_listening { pace.listening } else { pace.deaf };
                tokio::select! {
                    () = tokio::time::sleep(time) => return,
                    // Deaf now, or not any more: then the wait starts anew at the other pace.
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

impl std::fmt::Debug for Hints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hints").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl Drop for Hints {
    fn drop(&mut self) {
        let mut subscribers = self.hub.lock();
        if let Some(of_org) = subscribers.1.get_mut(&self.topic.org) {
            of_org.remove(&self.key);
            if of_org.is_empty() {
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

    const NEVER: Pace = Pace { listening: Duration::from_hours(1), deaf: Duration::from_hours(1) };

    fn is_told(hints: &mut Hints) -> bool {
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
        assert!(is_told(&mut all) && is_told(&mut row));
        assert!(!is_told(&mut all), "once is enough");
        assert!(!is_told(&mut another) && !is_told(&mut kind) && !is_told(&mut foreign));
        hub.set_listening(true);
        assert!(is_told(&mut another) && is_told(&mut kind) && is_told(&mut foreign));
        hub.set_listening(true);
        assert!(!is_told(&mut another));
    }

    #[tokio::test]
    async fn without_hints_the_wait_is_as_long_as_the_pace_says() {
        let hub = Arc::new(Hub::new());
        let mut hints = hub.subscribe(Topic::all(Id::new(), &[]));
        let soon = Duration::from_millis(1);
        hints.next(Pace { deaf: soon, ..NEVER }).await;
        hub.set_listening(true);
        assert!(is_told(&mut hints));
        hints.next(Pace { listening: soon, ..NEVER }).await;
        // Deaf in the middle of the wait.
        let pace = Pace { deaf: soon, ..NEVER };
        tokio::join!(hints.next(pace), async { hub.set_listening(false) });
    }

    #[test]
    fn whoever_leaves_leaves_nothing_behind() {
        let hub = Arc::new(Hub::new());
        drop(hub.subscribe(Topic::all(Id::new(), &[])));
        assert!(hub.lock().1.is_empty());
    }
}
