//! What a handler knows of its job, and how it finishes it.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use domain::{
    Actor, Db, Origin, Result, Tx,
    entity::{JobId, OrganizationId},
};
use jobs::ClaimedJob;

/// What time it is: passed in, so that tests can step it.
pub type Clock = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// One attempt of a job.
#[derive(Clone)]
pub struct Context {
    db: Db,
    job: ClaimedJob,
    clock: Clock,
}

impl Context {
    pub(crate) const fn new(db: Db, job: ClaimedJob, clock: Clock) -> Self {
        Self { db, job, clock }
    }

    /// The job.
    pub const fn job(&self) -> JobId {
        self.job.claimed.lease.id
    }

    /// Whose job it is.
    pub const fn org(&self) -> OrganizationId {
        self.job.claimed.lease.org
    }

    /// On whose behalf it runs.
    pub const fn actor(&self) -> Actor {
        self.job.claimed.actor
    }

    /// Which attempt this is, from 1.
    pub const fn attempt(&self) -> i16 {
        self.job.claimed.attempt
    }

    /// What time it is.
    pub fn now(&self) -> DateTime<Utc> {
        (self.clock)()
    }

    /// A transaction that changes rows of the job's organization, on behalf of the job's actor.
    pub async fn write(&self) -> Result<Tx> {
        let request_id = Some(self.job().to_string());
        self.db.write(self.org(), Origin { actor: self.actor(), source_ip: None, request_id }).await
    }

    /// A transaction in which the job is done: commit it with its effects, and they happen once even when the job runs
    /// twice.
    ///
    /// # Errors
    /// `Conflict` if another worker has taken the job over.
    pub async fn finish(&self) -> Result<Tx> {
        let tx = self.write().await?;
        self.job.claim.complete(&tx).await?;
        Ok(tx)
    }
}
