//! Execution slots: each caller and each organization has a fixed number, so nobody takes all connections of the
//! process. Queries, mutations, reports and the pages of exports take a slot each.
//!
//! Chosen: slots per process. A caller who finds no slot waits for a short time and is then refused with a time to
//! retry, because a queue without a bound would only move the overload. Given up: slots across replicas; each replica
//! has its own connections to protect.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use domain::{
    Viewer,
    entity::{ApiKeyId, OrganizationId, UserId},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use crate::request::error::{Error, Result};

/// Executions of one user or API key at the same time.
pub(crate) const HOLDER_SLOTS: usize = 4;
/// Executions of one organization at the same time, at least.
const MIN_ORGANIZATION_SLOTS: usize = 8;
/// Filters for text of one organization at the same time; each reads all assets.
pub(crate) const TEXT_FILTER_SLOTS: usize = 2;
/// Maximum time to wait for a slot.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// Maximum time to wait for a slot for the next page of a download.
const MAX_PAGE_WAIT: Duration = Duration::from_secs(30);

/// Owner of a number of slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum SlotOwner {
    User(OrganizationId, UserId),
    ApiKey(ApiKeyId),
    Organization(OrganizationId),
    TextFilters(OrganizationId),
}

impl SlotOwner {
    fn slots(self, of_organization: usize) -> usize {
        match self {
            Self::User(..) | Self::ApiKey(_) => HOLDER_SLOTS.min(of_organization),
            Self::Organization(_) => of_organization,
            Self::TextFilters(_) => TEXT_FILTER_SLOTS,
        }
    }
}

/// Execution slots of all callers and organizations of a process. Only those with work in progress use memory.
#[derive(Debug, Clone)]
pub(crate) struct ExecutionSlots {
    semaphores: Arc<Mutex<HashMap<SlotOwner, Arc<Semaphore>>>>,
    /// Executions of one organization at the same time.
    of_organization: usize,
}

impl ExecutionSlots {
    /// Creates the slots for a pool with this number of connections, of which an organization can use half. With fewer
    /// than sixteen connections it can use more than half, because requests spend most of their time without one.
    pub(crate) fn new(pool_size: usize) -> Self {
        Self {
            semaphores: Arc::default(),
            of_organization: (pool_size / 2).max(MIN_ORGANIZATION_SLOTS),
        }
    }

    /// Takes a slot of the caller and one of the caller's organization for an execution.
    ///
    /// # Errors
    /// `RATE_LIMITED` if no slot becomes free in time.
    pub(crate) async fn of_execution(&self, viewer: &Viewer) -> Result<[ExecutionSlot; 2]> {
        self.of_caller(viewer, MAX_WAIT).await
    }

    /// Takes slots as [`ExecutionSlots::of_execution`] for the next page of a download. Waits longer, because the
    /// client would have to begin again.
    ///
    /// # Errors
    /// `RATE_LIMITED` if no slot becomes free in time.
    pub(crate) async fn of_page(&self, viewer: &Viewer) -> Result<[ExecutionSlot; 2]> {
        self.of_caller(viewer, MAX_PAGE_WAIT).await
    }

    async fn of_caller(&self, viewer: &Viewer, wait: Duration) -> Result<[ExecutionSlot; 2]> {
        let organization = SlotOwner::Organization(viewer.org);
        let holder = match viewer.actor {
            domain::Actor::User(user) => SlotOwner::User(viewer.org, user),
            domain::Actor::ApiKey(key) => SlotOwner::ApiKey(key),
            domain::Actor::System => organization,
        };
        let deadline = Instant::now() + wait;
        let holder = self.take(holder, deadline).await?;
        Ok([holder, self.take(organization, deadline).await?])
    }

    /// Takes a slot for a filter for text.
    ///
    /// # Errors
    /// `RATE_LIMITED` if no slot becomes free in time.
    pub(crate) async fn of_text_filter(&self, org: OrganizationId) -> Result<ExecutionSlot> {
        self.take(SlotOwner::TextFilters(org), Instant::now() + MAX_WAIT).await
    }

    async fn take(&self, owner: SlotOwner, deadline: Instant) -> Result<ExecutionSlot> {
        let semaphore = {
            let mut slots = self.semaphores.lock().unwrap_or_else(PoisonError::into_inner);
            let slots = slots.entry(owner);
            Arc::clone(
                slots
                    .or_insert_with(|| Arc::new(Semaphore::new(owner.slots(self.of_organization)))),
            )
        };
        let mut slot = ExecutionSlot { slots: self.clone(), owner, permit: None };
        let permit = match Arc::clone(&semaphore).try_acquire_owned() {
            Ok(permit) => Some(permit),
            // The semaphore is never closed, so an error means that the time is over.
            Err(_) => {
                timeout_at(deadline, semaphore.acquire_owned()).await.ok().and_then(Result::ok)
            }
        };
        slot.permit = permit;
        if slot.permit.is_none() {
            return Err(Error::rate_limited(MAX_WAIT));
        }
        Ok(slot)
    }
}

/// An execution slot that is in use until it is dropped.
#[derive(Debug)]
pub(crate) struct ExecutionSlot {
    slots: ExecutionSlots,
    owner: SlotOwner,
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for ExecutionSlot {
    fn drop(&mut self) {
        let mut slots = self.slots.semaphores.lock().unwrap_or_else(PoisonError::into_inner);
        self.permit = None;
        // Callers who wait or work hold the semaphore too. New ones need the lock to find it.
        if slots.get(&self.owner).is_some_and(|semaphore| Arc::strong_count(semaphore) == 1) {
            slots.remove(&self.owner);
        }
    }
}
