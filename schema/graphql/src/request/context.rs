//! What a resolver knows of its request: who asks, and one read transaction.
//!
//! All reads of a request share one read-only transaction, opened when the first needs it. A write ends it first, so a
//! request never holds two connections; what is selected of the mutation's result opens the next. A resolver lets the
//! transaction go before it awaits a loader: one that waits for it to end would keep the loader from starting.

use std::{net::IpAddr, sync::Arc};

use async_graphql::Context;
use chrono::{DateTime, Utc};
use domain::{
    Db, Origin, Tx, Viewer,
    access::identity::{Caller, Identity},
    base::{
        db::{Auth, Fleet},
        page::CursorKeys,
    },
};
use jobs::{Decision, Limiter, Quota, event::Listener};
use tokio::sync::{OnceCell, OwnedRwLockReadGuard, RwLock};

use crate::request::error::{Error, ErrorCode, Result};

/// What the schema's resolvers work with, the same for all requests.
#[derive(Clone)]
pub struct Services {
    /// The database.
    pub db: Db,
    /// Signs people in and recognises them.
    pub identity: Identity,
    /// Limits across all replicas.
    pub limiter: Limiter,
    /// Hears which rows changed.
    pub listener: Listener,
    /// How often somebody may try to sign in or refresh.
    pub auth_quota: Quota,
    /// How often somebody, and an organization, may start a scan.
    pub scan_quota: Quota,
    /// What signs cursors.
    pub cursors: CursorKeys,
}

/// Who is at the other end of the wire, whoever they say they are.
#[derive(Debug, Clone)]
pub struct Client {
    /// Their address.
    pub address: IpAddr,
    /// The request's id.
    pub request_id: String,
}

/// One request.
pub(crate) struct RequestScope {
    services: Arc<Services>,
    viewer: Option<Viewer>,
    caller: Caller,
    reading: Arc<RwLock<OnceCell<Tx>>>,
}

impl RequestScope {
    pub(crate) fn new(
        services: Arc<Services>,
        viewer: Option<Viewer>,
        client: Client,
        now: DateTime<Utc>,
    ) -> Self {
        let caller = Caller { address: client.address, request_id: client.request_id, now };
        Self { services, viewer, caller, reading: Arc::default() }
    }

    /// The request's read transaction, to be let go before anything else of the request is awaited.
    pub(crate) async fn read(&self) -> Result<Reading> {
        let org = self.viewer()?.org;
        let reading = Arc::clone(&self.reading).read_owned().await;
        reading.get_or_try_init(|| self.services.db.read(org)).await?;
        Ok(OwnedRwLockReadGuard::map(reading, |tx| tx.get().expect("it has just been opened")))
    }

    /// Reads what belongs to people rather than to an organization; waits until nobody uses the read transaction.
    pub(crate) async fn read_people<T>(
        &self,
        read: impl AsyncFnOnce(&Tx<Auth>) -> domain::Result<T>,
    ) -> Result<T> {
        let mut reading = self.reading.write().await;
        end(&mut reading).await;
        let tx = self.services.db.auth(Origin::system()).await?;
        let found = read(&tx).await?;
        tx.commit().await?;
        Ok(found)
    }

    /// Reads what belongs to the installation rather than to an organization, as [`RequestScope::read_people`] does. Only
    /// for who has `FLEET_READ`.
    pub(crate) async fn read_fleet<T>(
        &self,
        read: impl AsyncFnOnce(&Tx<Fleet>) -> domain::Result<T>,
    ) -> Result<T> {
        let mut reading = self.reading.write().await;
        end(&mut reading).await;
        let tx = self.services.db.fleet().await?;
        let found = read(&tx).await?;
        tx.commit().await?;
        Ok(found)
    }

    /// Ends the read transaction, so that its connection goes back to the pool.
    pub(crate) async fn finish(&self) {
        end(&mut *self.reading.write().await).await;
    }

    pub(crate) fn viewer(&self) -> Result<&Viewer> {
        self.viewer.as_ref().ok_or_else(|| Error::new(ErrorCode::Unauthenticated, SIGN_IN))
    }
}

/// The read transaction while somebody uses it.
pub(crate) type Reading = OwnedRwLockReadGuard<OnceCell<Tx>, Tx>;

async fn end(reading: &mut OnceCell<Tx>) {
    if let Some(tx) = reading.take()
        && let Err(error) = tx.commit().await
    {
        // Nothing was written; the connection is discarded.
        let error = &error as &dyn std::error::Error;
        tracing::debug!(error, "a read transaction did not end cleanly");
    }
}

/// What to do when nobody is signed in.
pub(crate) const SIGN_IN: &str = "Sign in with the mutation login and send the header Authorization: Bearer <accessToken>, or an API key in its place.";

/// What resolvers ask their context for.
pub(crate) trait ContextExt<'a> {
    /// The request.
    fn scope(&self) -> &'a RequestScope;

    /// Who asks; the document check has let nobody else through to where somebody is needed.
    fn viewer(&self) -> Result<&'a Viewer> {
        self.scope().viewer()
    }

    /// Who asks, or nobody.
    fn viewer_or_nobody(&self) -> Option<&'a Viewer> {
        self.scope().viewer.as_ref()
    }

    /// Address, request id and time of the request.
    fn caller(&self) -> &'a Caller {
        &self.scope().caller
    }

    /// The time at which the request is judged.
    fn now(&self) -> DateTime<Utc> {
        self.scope().caller.now
    }

    /// Services of the process.
    fn services(&self) -> &'a Services {
        &self.scope().services
    }

    /// The request's read transaction.
    async fn read(&self) -> Result<Reading> {
        self.scope().read().await
    }

    /// A transaction that changes rows of the viewer's organization.
    async fn write(&self) -> Result<Tx> {
        let scope = self.scope();
        scope.finish().await;
        let viewer = scope.viewer()?;
        let origin = viewer.origin(scope.caller.address, scope.caller.request_id.clone());
        Ok(scope.services.db.write(viewer.org, origin).await?)
    }

    /// A transaction over people, memberships, sessions and keys.
    async fn write_people(&self) -> Result<Tx<Auth>> {
        let scope = self.scope();
        scope.finish().await;
        let viewer = scope.viewer()?;
        let origin = viewer.origin(scope.caller.address, scope.caller.request_id.clone());
        Ok(scope.services.db.auth(origin).await?)
    }

    /// Counts one attempt against a quota, in each of these buckets.
    async fn take(&self, quota: &Quota, keys: &[&str]) -> Result<()> {
        match self.services().limiter.take(quota, keys).await {
            Decision::Allowed => Ok(()),
            Decision::Refused { retry_after } => Err(Error::rate_limited(retry_after)),
        }
    }
}

impl<'a> ContextExt<'a> for Context<'a> {
    fn scope(&self) -> &'a RequestScope {
        self.data_unchecked::<Arc<RequestScope>>()
    }
}
