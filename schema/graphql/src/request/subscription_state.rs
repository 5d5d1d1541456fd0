//! State of a subscription. A subscription executes its query again after each change, so its resolvers keep state from
//! one execution to the next here. Resolvers write the state; `engine::subscription` reads it to decide when to execute
//! again and what to send.
//!
//! A change is announced by a hint, i.e. a notification, without content, that rows may have changed. Hints can be
//! lost, so a subscription also polls.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_graphql::Context;
use jobs::event::{HintSubscription, PollInterval, Topic};
use uuid::Uuid;

mod sent_rows;

pub(crate) use sent_rows::SentRows;

use crate::request::{context::ContextExt, error::Result};

/// State that a subscription keeps from one execution of its query to the next.
#[derive(Default)]
pub(crate) struct SubscriptionState {
    hint_subscription: Mutex<Option<HintSubscription>>,
    min_interval: Mutex<Duration>,
    sent_rows: Mutex<SentRows>,
    ended_by_resolver: AtomicBool,
    is_dedup_disabled: AtomicBool,
    has_executed: AtomicBool,
}

impl SubscriptionState {
    /// Returns the state of the subscription that the current query belongs to.
    pub(crate) fn of<'a>(ctx: &Context<'a>) -> &'a Self {
        ctx.data_unchecked::<Arc<Self>>()
    }

    /// Subscribes to hints about rows of these kinds (id prefixes such as `run`): about the row with this id, or about
    /// all rows if `id` is `None`. Call this function before the first read of the rows; otherwise a change between the
    /// read and the call is missed. Only the first call has an effect.
    pub(crate) fn subscribe_to_hints(
        &self,
        ctx: &Context<'_>,
        kinds: &'static [&'static str],
        id: Option<Uuid>,
    ) -> Result<()> {
        let org = ctx.viewer()?.org;
        let mut hint_subscription = lock(&self.hint_subscription);
        if hint_subscription.is_none() {
            let topic = Topic { org: org.uuid(), kinds, id };
            *hint_subscription = Some(ctx.services().listener.subscribe(topic));
        }
        Ok(())
    }

    /// Sets the minimum time between two executions, even if hints arrive sooner.
    pub(crate) fn set_min_interval(&self, min_interval: Duration) {
        *lock(&self.min_interval) = min_interval;
    }

    /// Returns the record of rows that were sent recently.
    pub(crate) fn sent_rows(&self) -> MutexGuard<'_, SentRows> {
        lock(&self.sent_rows)
    }

    /// Turns off the suppression of repeated responses, for a subscription with one response per row.
    pub(crate) fn disable_dedup(&self) {
        self.is_dedup_disabled.store(true, Ordering::Relaxed);
    }

    /// Ends the subscription after the response to the current execution.
    pub(crate) fn complete(&self) {
        self.ended_by_resolver.store(true, Ordering::Relaxed);
    }

    /// Waits until a hint arrives, or until the polling interval has passed. Returns immediately if no resolver has
    /// subscribed to hints.
    pub(crate) async fn wait_for_hint(&self, interval: PollInterval) {
        let mut hint_subscription = lock(&self.hint_subscription).take();
        if let Some(hints) = &mut hint_subscription {
            hints.next(interval).await;
        }
        *lock(&self.hint_subscription) = hint_subscription;
    }

    /// Returns the minimum time between two executions; zero if no resolver has set it.
    pub(crate) fn min_interval(&self) -> Duration {
        *lock(&self.min_interval)
    }

    /// Returns true on the first call, which the first execution makes.
    pub(crate) fn is_first_execution(&self) -> bool {
        !self.has_executed.swap(true, Ordering::Relaxed)
    }

    /// Returns true if a response is sent even if it equals the previous one.
    pub(crate) fn is_dedup_disabled(&self) -> bool {
        self.is_dedup_disabled.load(Ordering::Relaxed)
    }

    /// Returns true if no further execution is needed: a resolver has ended the subscription, or no resolver has
    /// subscribed to hints, so that no row is being watched.
    pub(crate) fn is_complete(&self) -> bool {
        self.ended_by_resolver.load(Ordering::Relaxed) || lock(&self.hint_subscription).is_none()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
