//! What a subscription remembers from one execution to the next: its fields write it, `engine` reads it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_graphql::Context;
use jobs::event::{Hints, Pace, Topic};
use uuid::Uuid;

mod recent;

pub(crate) use recent::Recent;

use crate::request::{context::ContextExt, error::Result};

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
