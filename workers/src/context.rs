//! Context of a handler: its job, the current time, and the transactions in which it works.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use domain::{
    Actor, Db, Origin, Result, Tx,
    access::{authorize, permission::Permission},
    entity::{JobId, OrganizationId},
};
use jobs::ClaimedJob;

/// Source of the current time, passed in so that tests can set it.
pub type Clock = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// Context of one attempt of a job.
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

    /// Returns the id of the job.
    pub const fn job(&self) -> JobId {
        self.job.row.lease.id
    }

    /// Returns the organization that owns the job.
    pub const fn org(&self) -> OrganizationId {
        self.job.row.lease.org
    }

    /// Returns the actor on whose behalf the job runs.
    pub const fn actor(&self) -> Actor {
        self.job.row.actor
    }

    /// Returns the number of this attempt, from 1.
    pub const fn attempt(&self) -> i16 {
        self.job.row.attempt
    }

    /// Returns the current time by the worker's clock.
    pub fn now(&self) -> DateTime<Utc> {
        (self.clock)()
    }

    /// Returns true if the job's actor has the permission at this time. A job stores its actor, but not the actor's
    /// permissions.
    pub async fn may(&self, permission: Permission) -> Result<bool> {
        let tx = self.db.auth(Origin::system()).await?;
        let may = authorize::may(&tx, self.org(), self.actor(), permission, self.now()).await?;
        tx.commit().await?;
        Ok(may)
    }

    /// Begins a transaction that can change rows of the job's organization, on behalf of the job's actor.
    pub async fn write(&self) -> Result<Tx> {
        let request_id = Some(self.job().to_string());
        self.db.write(self.org(), Origin { actor: self.actor(), source_ip: None, request_id }).await
    }

    /// Begins a transaction that completes the job. Write the effects of the job in the same transaction and commit it.
    /// The effects then happen exactly once, even if the job runs twice.
    ///
    /// # Errors
    /// `Conflict` if the claim on the job is lost, because its lease expired.
    pub async fn finish(&self) -> Result<Tx> {
        let tx = self.write().await?;
        self.job.claim.complete(&tx).await?;
        Ok(tx)
    }
}
