//! Subscriptions: the same document executed again and again, each time as if it had just been sent.
//!
//! Chosen: an event is a hint, so what is sent is a whole execution with its own transaction, loaders, viewer and check
//! of the document; nothing of an earlier one is trusted but what [`Watch`] remembers. Given up: pushing an event's own
//! content. Choose again when a subscription must see every state that a row ever had.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_graphql::{
    Context, Value,
    parser::types::{OperationType, Selection},
};
use futures_util::{Stream, stream};
use jobs::event::{Hints, Pace, Topic};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

mod recent;
mod roots;

pub(crate) use recent::Recent;
pub(crate) use roots::{ImportSubscription, JobSubscription, RunSubscription};

use crate::{
    document::{operation::Chosen, rejection::Refusal},
    engine::{Answer, Engine, Prepared, code, watch::Watching},
    request::{
        context::{Client, ContextExt},
        error::{ErrorCode, Result},
    },
};

/// What a subscription remembers from one execution to the next.
#[derive(Default)]
pub(crate) struct Watch {
    hints: Mutex<Option<Hints>>,
    spacing: Mutex<Duration>,
    recent: Mutex<Recent>,
    has_ended: AtomicBool,
    each_counts: AtomicBool,
}

impl Watch {
    /// That of the subscription which is being executed.
    pub(crate) fn of<'a>(ctx: &Context<'a>) -> &'a Self {
        ctx.data_unchecked::<Arc<Self>>()
    }

    /// Listens from now on for hints about one row, or all rows, of these kinds. Before the first look at them: what
    /// changes in between would be missed.
    pub(crate) fn listen(
        &self,
        ctx: &Context<'_>,
        kinds: &'static [&'static str],
        id: Option<Uuid>,
    ) -> Result<()> {
        let org = ctx.viewer()?.org;
        let mut hints = lock(&self.hints);
        if hints.is_none() {
            let topic = Topic { org: org.uuid(), kinds, id };
            *hints = Some(ctx.services().listener.subscribe(topic));
        }
        Ok(())
    }

    /// Executes no more often than this, however many hints come.
    pub(crate) fn at_most_every(&self, spacing: Duration) {
        *lock(&self.spacing) = spacing;
    }

    /// What was sent lately.
    pub(crate) fn recent(&self) -> MutexGuard<'_, Recent> {
        lock(&self.recent)
    }

    /// Every answer is of another row: one that looks like the last is sent all the same.
    pub(crate) fn each_counts(&self) {
        self.each_counts.store(true, Ordering::Relaxed);
    }

    /// What is being sent is the last.
    pub(crate) fn end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }

    /// Until a hint comes, or the pace asks for a look without one; at once where nothing is listened for.
    pub(crate) async fn hint(&self, pace: Pace) {
        let mut hints = lock(&self.hints).take();
        if let Some(hints) = &mut hints {
            hints.next(pace).await;
        }
        *lock(&self.hints) = hints;
    }

    /// The least time between two executions; none where no field asked for any.
    pub(crate) fn spacing(&self) -> Duration {
        *lock(&self.spacing)
    }

    /// Whether an answer is sent although it looks like the last.
    pub(crate) fn sends_each(&self) -> bool {
        self.each_counts.load(Ordering::Relaxed)
    }

    /// Whether no further execution can bring anything. Without hints nothing would wake it: it has never looked at any row.
    pub(crate) fn is_over(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed) || lock(&self.hints).is_none()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Refuses what async-graphql would run otherwise than the specification says: a subscription is one field, and it must
/// be there. A fragment at the root would find nothing and stay silent, so it is refused, too.
pub(crate) fn check_root(chosen: Chosen<'_>) -> Result<(), Refusal> {
    if chosen.kind() != OperationType::Subscription {
        return Ok(());
    }
    let selections = chosen.selections();
    match selections.node.items.as_slice() {
        [item] if !chosen.excludes(item.node.directives()) => match &item.node {
            Selection::Field(field) if !field.node.name.node.starts_with("__") => Ok(()),
            Selection::Field(_) => Err(Refusal::invalid(
                selections.pos,
                "a subscription watches a field of the schema",
            )),
            Selection::FragmentSpread(_) | Selection::InlineFragment(_) => Err(Refusal::invalid(
                selections.pos,
                "a subscription names its field itself: use fragments below it",
            )),
        },
        _ => Err(Refusal::invalid(selections.pos, "a subscription selects exactly one field")),
    }
}

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
