//! Admission of a request: the rates of its client address and of its caller, and the depth of the job queues.
//!
//! The address is counted before anything else is done for the request, the caller after authentication. Both are
//! counted once per operation, whatever the transport; the later executions of a subscription are not counted, because
//! the server decides when they run.

use chrono::{DateTime, Utc};
use domain::{Viewer, access::permission::Permission};
use jobs::queue::depth::QueueDepth;

use crate::{
    document::authorize::{Forbidden, Need},
    request::{
        context::{Client, Services},
        error::{Error, ErrorCode, Result},
    },
};

/// Message for an operation that would start jobs while too many are waiting. It names no number, because the jobs
/// belong to all organizations.
const QUEUES_FULL: &str = "The job queues are full, so nothing that starts jobs is accepted at the moment; everything else works. Try again in 10 s.";

impl Services {
    /// Counts an operation of the client's address.
    ///
    /// # Errors
    /// `RATE_LIMITED` if the address has sent too many.
    pub(crate) async fn count_address(&self, client: &Client) -> Result<()> {
        let quota = &self.address_quota;
        Error::of_decision(self.limiter.take_of_address_in_blocks(quota, client.address).await)
    }

    /// Counts an operation of the caller. An anonymous caller is counted by address only.
    ///
    /// # Errors
    /// `RATE_LIMITED` if the caller has sent too many.
    pub(crate) async fn count_caller(&self, viewer: Option<&Viewer>) -> Result<()> {
        let Some(holder) = viewer.and_then(Viewer::own_id) else { return Ok(()) };
        Error::of_decision(self.limiter.take_in_blocks(&self.request_quota, &holder).await)
    }

    /// Counts fields that the caller lacks a permission for, for the audit trail.
    pub(crate) fn count_forbidden(
        &self,
        viewer: &Viewer,
        forbidden: &[Forbidden],
        client: &Client,
        now: DateTime<Utc>,
    ) {
        for forbidden in forbidden {
            if let Need::Permission(permission) = forbidden.need {
                self.count_refused(viewer, &forbidden.field, permission, client, now);
            }
        }
    }

    /// Counts a field or file that the caller lacks a permission for, for the audit trail.
    pub(crate) fn count_refused(
        &self,
        viewer: &Viewer,
        field: &str,
        permission: Permission,
        client: &Client,
        now: DateTime<Utc>,
    ) {
        let origin = viewer.origin(client.address, client.request_id.clone());
        self.identity.refusals().count_field(viewer, field, Some(permission), &origin, now);
    }

    /// Checks that the job queues can take more jobs.
    ///
    /// # Errors
    /// `DEPENDENCY_UNAVAILABLE` if too many jobs are waiting.
    pub(crate) fn check_queues(&self) -> Result<()> {
        if self.queue_depth.admits_jobs() {
            return Ok(());
        }
        Err(Error {
            retry_after: Some(QueueDepth::RETRY_AFTER),
            ..Error::new(ErrorCode::DependencyUnavailable, QUEUES_FULL)
        })
    }
}
