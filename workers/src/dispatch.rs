//! One attempt of a job: its right is checked again, then its function runs until it is done, out of time, or stopped.

use std::sync::Arc;

use domain::{
    Db, Origin,
    access::{audit::Entry, authorize},
};
use jobs::{
    ClaimedJob, Failure,
    queue::{backend::Interruption, claims::Stop},
};
use tracing::Instrument;

use crate::{
    context::{Clock, Context},
    handler::Handlers,
};

const PANICKED: &str = "it panicked: the worker's log says where";

/// What every attempt works with.
#[derive(Clone)]
pub(crate) struct Dispatcher {
    pub(crate) db: Db,
    pub(crate) handlers: Arc<Handlers>,
    pub(crate) clock: Clock,
}

impl Dispatcher {
    /// Runs one attempt on a task of its own: one job's work does not hold up another's, and its panic is a failure.
    pub(crate) async fn run(self, job: ClaimedJob) -> Result<(), Interruption> {
        match tokio::spawn(self.attempt(job)).await {
            Ok(result) => result,
            // What a panic says may be anything: it is for the log, not for whoever reads jobs.
            Err(error) if error.is_panic() => Err(Interruption::Failed(Failure::retry(PANICKED))),
            // Aborted: only a runtime that ends does that.
            Err(_) => Err(Interruption::Stopped(Stop::Shutdown)),
        }
    }

    async fn attempt(self, job: ClaimedJob) -> Result<(), Interruption> {
        let claimed = &job.claimed;
        let Some(handler) = self.handlers.find(&claimed.kind, claimed.version).cloned() else {
            return Err(Interruption::Failed(Failure::abort("no handler knows this kind")));
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
        let payload = job.claimed.payload.clone();
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
                    Err(Failure::retry(format!("it was not done within {seconds} s")))
                })
                .map_err(Interruption::Failed)
            }
        }
    }

    /// A job carries who wants it, never rights: what its actor may do is asked now.
    async fn authorize(&self, job: &ClaimedJob, context: &Context) -> Result<(), Failure> {
        let claimed = &job.claimed;
        let Some(permission) = claimed.permission else { return Ok(()) };
        let (org, actor, now) = (claimed.lease.org, claimed.actor, context.now());
        let tx = self.db.auth(Origin::system()).await?;
        let may = authorize::may(&tx, org, actor, permission, now).await?;
        tx.commit().await?;
        if may {
            return Ok(());
        }
        let tx = context.write().await?;
        Entry::happened("job.denied_at_run", claimed.lease.id).record(&tx, now).await?;
        tx.commit().await?;
        Err(Failure::Denied {
            reason: format!("its actor no longer has the permission {permission}"),
        })
    }
}
