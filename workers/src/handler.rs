//! Handlers of jobs, by kind and payload version.

use std::{collections::HashMap, pin::Pin, sync::Arc, time::Duration};

use domain::fleet::job::Queue;
use jobs::{Failure, Job, job::Ended};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::context::Context;

type Handled = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// Handler of one job kind.
pub(crate) struct Handler {
    /// Time limit of one attempt.
    pub(crate) timeout: Duration,
    /// Function that parses the payload and runs the job.
    pub(crate) run: Box<dyn Fn(Context, Value) -> Handled + Send + Sync>,
}

impl Handler {
    fn of<J, P, F, Fut>(function: F) -> Self
    where
        J: Job,
        P: DeserializeOwned,
        F: Fn(Context, P) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let run = move |context, payload| -> Handled {
            match read(J::KIND, payload) {
                Ok(job) => Box::pin(function(context, job)),
                Err(failure) => Box::pin(std::future::ready(Err(failure))),
            }
        };
        Self { timeout: J::TIMEOUT, run: Box::new(run) }
    }
}

/// Set of handlers, by job kind and payload version.
#[derive(Clone, Default)]
pub struct Handlers(HashMap<(String, i16), (Queue, Arc<Handler>)>);

impl Handlers {
    /// Returns an empty set of handlers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the function that runs jobs of this kind, in every version that the kind can read.
    #[must_use]
    pub fn on<J, F, Fut>(mut self, function: F) -> Self
    where
        J: Job,
        F: Fn(Context, J) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        self.insert::<J>(J::KIND, Handler::of::<J, _, _, _>(function));
        self
    }

    /// Adds the function that runs after a job of this kind was buried (dead-lettered), discarded or cancelled. Works
    /// only for kinds with [`Job::WATCHED`].
    #[must_use]
    pub fn on_ended<J, F, Fut>(mut self, function: F) -> Self
    where
        J: Job,
        F: Fn(Context, Ended) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let kind = format!("{}.ended", J::KIND);
        self.insert::<J>(&kind, Handler::of::<J, _, _, _>(function));
        self
    }

    fn insert<J: Job>(&mut self, kind: &str, handler: Handler) {
        let handler = Arc::new(handler);
        for version in J::READS {
            self.0.insert((kind.to_owned(), *version), (J::QUEUE, Arc::clone(&handler)));
        }
    }

    /// Returns the kinds and versions of a queue that have a handler.
    pub(crate) fn kinds(&self, queue: Queue) -> Vec<(String, i16)> {
        self.0.iter().filter(|(_, (of, _))| *of == queue).map(|(kind, _)| kind.clone()).collect()
    }

    pub(crate) fn find(&self, kind: &str, version: i16) -> Option<&Arc<Handler>> {
        self.0.get(&(kind.to_owned(), version)).map(|(_, handler)| handler)
    }
}

fn read<T: DeserializeOwned>(kind: &str, payload: Value) -> Result<T, Failure> {
    serde_json::from_value(payload)
        .map_err(|error| Failure::abort(format!("the payload of {kind} cannot be read: {error}")))
}
