//! Places for concurrent work: each caller and each organization has a fixed number, so nobody takes all connections of
//! the process.
//!
//! Chosen: places per process. A caller who finds no place waits for a short time and is then refused with a time to
//! retry, because a queue without a bound would only move the overload. Given up: places across replicas; each replica
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
pub(crate) const HOLDER_PLACES: usize = 4;
/// Executions of one organization at the same time: half of the connections that a process has by default.
pub(crate) const ORGANIZATION_PLACES: usize = 8;
/// Filters for text of one organization at the same time; each reads all assets.
pub(crate) const TEXT_FILTER_PLACES: usize = 2;
/// Maximum time to wait for a place.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// Owner of a number of places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum PlaceOwner {
    User(OrganizationId, UserId),
    ApiKey(ApiKeyId),
    Organization(OrganizationId),
    TextFilters(OrganizationId),
}

impl PlaceOwner {
    const fn places(self) -> usize {
        match self {
            Self::User(..) | Self::ApiKey(_) => HOLDER_PLACES,
            Self::Organization(_) => ORGANIZATION_PLACES,
            Self::TextFilters(_) => TEXT_FILTER_PLACES,
        }
    }
}

/// Places of all callers and organizations of a process. Only those with work in progress use memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places(Arc<Mutex<HashMap<PlaceOwner, Arc<Semaphore>>>>);

impl Places {
    /// Takes a place of the caller and one of the caller's organization for an execution.
    ///
    /// # Errors
    /// `RATE_LIMITED` if no place becomes free in time.
    pub(crate) async fn of_execution(&self, viewer: &Viewer) -> Result<[Place; 2]> {
        let organization = PlaceOwner::Organization(viewer.org);
        let holder = match viewer.actor {
            domain::Actor::User(user) => PlaceOwner::User(viewer.org, user),
            domain::Actor::ApiKey(key) => PlaceOwner::ApiKey(key),
            domain::Actor::System => organization,
        };
        let deadline = Instant::now() + MAX_WAIT;
        let holder = self.take(holder, deadline).await?;
        Ok([holder, self.take(organization, deadline).await?])
    }

    /// Takes a place for a filter for text.
    ///
    /// # Errors
    /// `RATE_LIMITED` if no place becomes free in time.
    pub(crate) async fn of_text_filter(&self, org: OrganizationId) -> Result<Place> {
        self.take(PlaceOwner::TextFilters(org), Instant::now() + MAX_WAIT).await
    }

    async fn take(&self, owner: PlaceOwner, deadline: Instant) -> Result<Place> {
        let semaphore = {
            let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let places = places.entry(owner);
            Arc::clone(places.or_insert_with(|| Arc::new(Semaphore::new(owner.places()))))
        };
        let mut place = Place { places: self.clone(), owner, permit: None };
        let permit = match Arc::clone(&semaphore).try_acquire_owned() {
            Ok(permit) => Some(permit),
            // The semaphore is never closed, so an error means that the time is over.
            Err(_) => {
                timeout_at(deadline, semaphore.acquire_owned()).await.ok().and_then(Result::ok)
            }
        };
        place.permit = permit;
        if place.permit.is_none() {
            return Err(Error::rate_limited(MAX_WAIT));
        }
        Ok(place)
    }
}

/// A place that is in use until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    owner: PlaceOwner,
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.permit = None;
        // Callers who wait or work hold the semaphore too. New ones need the lock to find it.
        if places.get(&self.owner).is_some_and(|semaphore| Arc::strong_count(semaphore) == 1) {
            places.remove(&self.owner);
        }
    }
}
