//! Subscriptions: the same document executed again and again, each time as if it had just been sent.
//!
//! Operation: an event is a hint, so what is sent is a whole execution with its own transaction, loaders, viewer and check
//! of the document; nothing of an earlier one is trusted but what [`Watch`] remembers. Given up: pushing an event's own
//! content. Choose again when a subscription must see every state that a row ever had.

use std::{collections::VecDeque, sync::Arc};

use async_graphql::Value;
use futures_util::{Stream, stream};
use tokio::time::{Instant, sleep_until};

use crate::{
    engine::{Engine, Prepared, recognition::Watching},
    request::{
        answer::{Answer, code},
        context::Client,
        error::ErrorCode,
        watch::Watch,
    },
};

impl Engine {
    /// Executes a subscription at once, and again whenever what it watches may have changed: each answer that differs
    /// from the last. Ends after an answer that was not executed or failed, and where there is nothing more to come.
    pub fn subscribe(
        &self,
        prepared: Prepared,
        bearer: Option<String>,
        client: Client,
    ) -> impl Stream<Item = Answer> + Send + use<> {
        let subscription = Subscription {
            engine: self.clone(),
            watching: *self.watching(),
            prepared,
            bearer,
            client,
            watch: Arc::default(),
            executed_at: None,
            unsent: VecDeque::new(),
            last: Value::Null,
            is_over: false,
        };
        stream::unfold(subscription, |mut subscription| async move {
            subscription.next().await.map(|answer| (answer, subscription))
        })
    }
}

struct Subscription {
    engine: Engine,
    watching: Watching,
    prepared: Prepared,
    bearer: Option<String>,
    client: Client,
    watch: Arc<Watch>,
    executed_at: Option<Instant>,
    unsent: VecDeque<Answer>,
    last: Value,
    is_over: bool,
}

impl Subscription {
    async fn next(&mut self) -> Option<Answer> {
        loop {
            if let Some(answer) = self.unsent.pop_front() {
                return Some(answer);
            }
            if self.is_over {
                return None;
            }
            self.wait().await;
            self.execute().await;
        }
    }

    /// Until it is time to execute again.
    async fn wait(&mut self) {
        let Some(executed_at) = self.executed_at else { return };
        self.watch.hint(self.watching.pace).await;
        // What comes in the meantime melts into the one execution.
        let spacing = self.watching.debounce.max(self.watch.spacing());
        sleep_until(executed_at + spacing).await;
    }

    async fn execute(&mut self) {
        let is_first = self.executed_at.is_none();
        let (bearer, client) = (self.bearer.as_deref(), self.client.clone());
        let answers = self.engine.tick(&self.prepared, bearer, client, &self.watch).await;
        self.executed_at = Some(Instant::now());
        for answer in answers {
            let has_failed = answer.response.data == Value::Null;
            if has_failed && !is_first && is_passing(&answer) {
                continue; // The next execution finds what this one could not.
            }
            let is_new = self.watch.sends_each()
                || answer.response.data != self.last
                || !answer.response.errors.is_empty();
            if is_new {
                self.last.clone_from(&answer.response.data);
                self.unsent.push_back(answer);
            }
            if has_failed {
                self.is_over = true;
                return;
            }
        }
        self.is_over = self.watch.is_over();
    }
}

/// Whether the failure is none of the document's and will pass.
fn is_passing(answer: &Answer) -> bool {
    let codes = [ErrorCode::DependencyUnavailable, ErrorCode::Timeout];
    let mut errors = answer.response.errors.iter();
    errors.all(|error| codes.iter().any(|passing| code(error) == Some(passing.as_str())))
}
