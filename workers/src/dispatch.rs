//! Runs one attempt of a job: checks the permission of the job's actor, then runs the handler until it returns, times
//! out or is stopped.

use std::sync::Arc;

use domain::{Db, access::audit::Entry};
use jobs::{
    ClaimedJob, Failure,
    queue::{backend::Interruption, claims::Stop},
};
use tracing::Instrument;

use crate::{
    context::{Clock, Context},
    handler::Handlers,
};

const PANICKED: &str = "the handler panicked: see the worker's log";

/// State that all attempts of a queue share.
#[derive(Clone)]
pub(crate) struct Dispatcher {
    pub(crate) db: Db,
    pub(crate) handlers: Arc<Handlers>,
    pub(crate) clock: Clock,
}

impl Dispatcher {
    /// Runs one attempt on its own task, so that the attempt does not block other jobs and a panic counts as a failure.
    pub(crate) async fn run(self, job: ClaimedJob) -> Result<(), Interruption> {
        match tokio::spawn(self.attempt(job)).await {
            Ok(result) => result,
            // The message of a panic may contain anything, so it is logged and not shown to users.
            Err(error) if error.is_panic() => Err(Interruption::Failed(Failure::retry(PANICKED))),
            // The task was aborted, which only happens when the runtime shuts down.
            Err(_) => Err(Interruption::Stopped(Stop::Shutdown)),
        }
    }

    async fn attempt(self, job: ClaimedJob) -> Result<(), Interruption> {
        let claimed = &job.row;
        let Some(handler) = self.handlers.find(&claimed.kind, claimed.version).cloned() else {
            return Err(Interruption::Failed(Failure::abort(
                "this worker has no handler for the job's kind and version",
            )));
        };
        let span = tracing::info_span!(
            "job",
            job.id = %claimed.lease.id,
            job.kind = claimed.kind,
            job.attempt = claimed.attempt,
            organization.id = %claimed.lease.org
        );
        let claim = Arc::clone(&job.claim);
        claim.start(handler.timeout);
        let payload = job.row.payload.clone();
        let context = Context::new(self.db.clone(), job.clone(), Arc::clone(&self.clock));
        let work = async {
            self.authorize(&job, &context).await?;
            (handler.run)(context, payload).await
        };
        tokio::select! {
            biased;
            stop = claim.stopped() => Err(Interruption::Stopped(stop)),
            done = tokio::time::timeout(handler.timeout, work.instrument(span)) => {
                done.unwrap_or_else(|_| {
                    let seconds = handler.timeout.as_secs_f32();
                    Err(Failure::retry(format!("the job timed out after {seconds} s")))
                })
                .map_err(Interruption::Failed)
            }
        }
    }

    /// Checks that the job's actor has the required permission at this time.
    async fn authorize(&self, job: &ClaimedJob, context: &Context) -> Result<(), Failure> {
        let claimed = &job.row;
        let Some(permission) = claimed.permission else { return Ok(()) };
        if context.may(permission).await? {
            return Ok(());
        }
        let tx = context.write().await?;
        Entry::without_values("job.denied_at_run", claimed.lease.id).record(&tx).await?;
        tx.commit().await?;
        Err(Failure::Denied {
            reason: format!("the job's actor no longer has the permission {permission}"),
        })
    }
}
