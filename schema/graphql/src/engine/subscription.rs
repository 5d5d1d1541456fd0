//! Subscriptions: the document is executed again after each change, each time as if it had just been sent.
//!
//! Chosen: changes are announced by hints, i.e. notifications without content. Each answer comes from a
//! complete execution with its own transaction, loaders, authentication and authorization. Only [`SubscriptionState`]
//! carries state from one execution to the next. Given up: notifications that contain the changed data.
//! Revisit when a subscription must deliver every intermediate state of a row.

use std::{collections::VecDeque, sync::Arc};

use async_graphql::Value;
use futures_util::{Stream, stream};
use tokio::time::{Instant, sleep_until};

use crate::{
    engine::{Engine, Prepared, connection::CheckIntervals},
    request::{
        answer::{Answer, code},
        context::Client,
        error::ErrorCode,
        subscription_state::SubscriptionState,
    },
};

impl Engine {
    /// Executes a subscription immediately, and again whenever the rows that its resolvers read may have changed.
    /// Streams each answer with data that differs from the previous answer. Ends after an answer without data (rejected
    /// or failed), and when a resolver has ended the subscription, e.g. because a run has ended.
    pub fn subscribe(
        &self,
        prepared: Prepared,
        bearer: Option<String>,
        client: Client,
    ) -> impl Stream<Item = Answer> + Send + use<> {
        let subscription = Subscription {
            engine: self.clone(),
            intervals: *self.intervals(),
            prepared,
            bearer,
            client,
            state: Arc::default(),
            executed_at: None,
            unsent: VecDeque::new(),
            last_data: Value::Null,
            is_complete: false,
        };
        stream::unfold(subscription, |mut subscription| async move {
            subscription.next().await.map(|answer| (answer, subscription))
        })
    }
}

struct Subscription {
    engine: Engine,
    intervals: CheckIntervals,
    prepared: Prepared,
    bearer: Option<String>,
    client: Client,
    state: Arc<SubscriptionState>,
    executed_at: Option<Instant>,
    unsent: VecDeque<Answer>,
    last_data: Value,
    is_complete: bool,
}

impl Subscription {
    async fn next(&mut self) -> Option<Answer> {
        loop {
            if let Some(answer) = self.unsent.pop_front() {
                return Some(answer);
            }
            if self.is_complete {
                return None;
            }
            self.wait().await;
            self.execute().await;
        }
    }

    /// Waits until the next execution is due.
    async fn wait(&mut self) {
        let Some(executed_at) = self.executed_at else { return };
        self.state.wait_for_hint(self.intervals.poll).await;
        // Hints that arrive during this delay cause a single execution.
        let min_interval = self.intervals.debounce.max(self.state.min_interval());
        sleep_until(executed_at + min_interval).await;
    }

    async fn execute(&mut self) {
        let is_first = self.executed_at.is_none();
        let (bearer, client) = (self.bearer.as_deref(), self.client.clone());
        let answers =
            self.engine.execute_for_subscription(&self.prepared, bearer, client, &self.state).await;
        self.executed_at = Some(Instant::now());
        for answer in answers {
            let has_failed = answer.response.data == Value::Null;
            if has_failed && !is_first && is_temporary(&answer) {
                continue; // Not sent: the next execution reads the current state again.
            }
            let is_new = self.state.is_dedup_disabled()
                || answer.response.data != self.last_data
                || !answer.response.errors.is_empty();
            if is_new {
                self.last_data.clone_from(&answer.response.data);
                self.unsent.push_back(answer);
            }
            if has_failed {
                self.is_complete = true;
                return;
            }
        }
        self.is_complete = self.state.is_complete();
    }
}

/// Returns true if all errors are temporary (database unavailable, timeout, no slot), not caused by the document.
fn is_temporary(answer: &Answer) -> bool {
    let codes = [ErrorCode::DependencyUnavailable, ErrorCode::Timeout, ErrorCode::RateLimited];
    let mut errors = answer.response.errors.iter();
    errors.all(|error| codes.iter().any(|temporary| code(error) == Some(temporary.as_str())))
}
