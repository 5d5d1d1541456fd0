//! The context of a request: the caller, and one read transaction.
//!
//! All reads of a request share one read-only transaction, which the first read opens. A write ends the read
//! transaction first, so a request never holds two database connections; reading the mutation's result opens a new read
//! transaction. A resolver must drop its [`ReadGuard`] before it awaits a loader. Otherwise the request can deadlock:
//! another resolver waits for the guard in order to end the transaction, and the loader's read waits behind that
//! resolver.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use async_graphql::{Context, PathSegment, Response, Value};
use chrono::{DateTime, Utc};
use domain::{
    Db, Origin, Tx, Viewer,
    access::identity::{Identity, RequestInfo},
    base::{
        db::{Auth, Fleet},
        page::CursorKeys,
    },
};
use jobs::{Limiter, Quota, event::Listener, queue::depth::QueueDepth};
use tokio::sync::{OnceCell, OwnedRwLockReadGuard, RwLock};

use crate::{
    document::key_order::KeyOrder,
    request::{
        error::{Error, ErrorCode, Result},
        execution_slot::ExecutionSlots,
        pace::{EarlyEnd, Pace},
    },
};

/// Services that all requests of the process share.
#[derive(Clone)]
pub struct Services {
    /// Connection pools of the database.
    pub db: Db,
    /// Sign-in, and authentication of bearer tokens.
    pub identity: Identity,
    /// Rate limiter across all replicas.
    pub limiter: Limiter,
    /// Listener for hints, i.e. notifications without content that rows may have changed.
    pub listener: Listener,
    /// Quota for attempts to sign in, to refresh a session and to change a password.
    pub auth_quota: Quota,
    /// Quota for starting compliance runs, per caller and per organization.
    pub run_quota: Quota,
    /// Quota for requests, per user or API key.
    pub request_quota: Quota,
    /// Quota for requests, per client address.
    pub address_quota: Quota,
    /// Depth of the job queues, above which no operation starts jobs.
    pub queue_depth: QueueDepth,
    /// Keys that sign cursors.
    pub cursors: CursorKeys,
}

/// The client of a request, before authentication.
#[derive(Debug, Clone)]
pub struct Client {
    /// IP address of the client.
    pub address: IpAddr,
    /// Id of the request, repeated in its errors and audit entries.
    pub request_id: String,
}

/// State of one request: its caller, its read transaction, and the pace of its execution.
pub(crate) struct RequestScope {
    services: Arc<Services>,
    viewer: Option<Viewer>,
    caller: RequestInfo,
    reading: Arc<RwLock<OnceCell<Tx>>>,
    slots: ExecutionSlots,
    /// Clock and byte counter of the execution.
    pub(crate) pace: Pace,
    /// Time left for all filters for text; the lock admits one filter at a time.
    text_filter: tokio::sync::Mutex<Duration>,
}

impl RequestScope {
    pub(crate) fn new(
        services: Arc<Services>,
        slots: ExecutionSlots,
        viewer: Option<Viewer>,
        client: Client,
        now: DateTime<Utc>,
        limit: Duration,
    ) -> Self {
        let caller = RequestInfo { address: client.address, request_id: client.request_id, now };
        Self {
            services,
            viewer,
            caller,
            reading: Arc::default(),
            slots,
            pace: Pace::new(limit),
            text_filter: tokio::sync::Mutex::new(MAX_TEXT_FILTER),
        }
    }

    /// Returns the request's read transaction, and opens one if necessary. Drop the returned guard before awaiting a
    /// loader or another function of the request.
    pub(crate) async fn read(&self) -> Result<ReadGuard> {
        let org = self.viewer()?.org;
        let reading = Arc::clone(&self.reading).read_owned().await;
        reading.get_or_try_init(|| self.services.db.read(org)).await?;
        Ok(OwnedRwLockReadGuard::map(reading, |tx| tx.get().expect("it has just been opened")))
    }

    /// Reads data that belongs to users rather than to an organization, in a separate transaction. Before that, waits
    /// until no resolver uses the read transaction, and ends the read transaction.
    pub(crate) async fn read_users<T>(
        &self,
        read: impl AsyncFnOnce(&Tx<Auth>) -> domain::Result<T>,
    ) -> Result<T> {
        let mut reading = self.reading.write().await;
        end(&mut reading).await;
        let tx = self.services.db.auth(Origin::system()).await?;
        let result = read(&tx).await?;
        tx.commit().await?;
        Ok(result)
    }

    /// Reads data of all organizations. Ends the read transaction first, like [`RequestScope::read_users`]. The
    /// resolver must have checked `FLEET_READ`.
    pub(crate) async fn read_fleet<T>(
        &self,
        read: impl AsyncFnOnce(&Tx<Fleet>) -> domain::Result<T>,
    ) -> Result<T> {
        let mut reading = self.reading.write().await;
        end(&mut reading).await;
        let tx = self.services.db.fleet().await?;
        let result = read(&tx).await?;
        tx.commit().await?;
        Ok(result)
    }

    /// Runs statements that filter for text, i.e. read every row of the organization: one filter at a time in a request,
    /// a few in an organization, and for a limited time. The execution ends when the time is used up, because the
    /// statement can only be cancelled together with its transaction.
    pub(crate) async fn filter_text<T>(&self, statements: impl Future<Output = T>) -> Result<T> {
        let mut left = self.text_filter.lock().await;
        let _slot = self.slots.of_text_filter(self.viewer()?.org).await?;
        let started = Instant::now();
        let Ok(result) = tokio::time::timeout(*left, statements).await else {
            self.pace.end(EarlyEnd::TextFilter);
            self.pace.check().await;
            return Err(Error::new(ErrorCode::Timeout, TEXT_FILTER_TOO_SLOW));
        };
        *left = left.saturating_sub(started.elapsed());
        Ok(result)
    }

    /// Ends the read transaction, which returns its connection to the pool.
    pub(crate) async fn finish(&self) {
        end(&mut *self.reading.write().await).await;
    }

    /// Ends the read transaction of an execution, depending on how the execution ended.
    pub(crate) async fn finish_or_abandon<T>(&self, outcome: &Result<T, EarlyEnd>) {
        match outcome {
            Ok(_) => self.finish().await,
            Err(_) => self.abandon().await,
        }
    }

    /// Drops the read transaction of an execution that ended early, which cancels its statement. `COMMIT` would wait
    /// until the statement has ended.
    async fn abandon(&self) {
        drop(self.reading.write().await.take());
    }

    /// Counts the root fields that their resolvers refused, for the audit trail.
    pub(crate) fn count_refusals(&self, response: &Response, root: &str, keys: &KeyOrder) {
        let Some(viewer) = &self.viewer else { return };
        for error in &response.errors {
            let code = error.extensions.as_ref().and_then(|extensions| extensions.get("code"));
            let is_refusal =
                matches!(code, Some(Value::String(code)) if code == ErrorCode::Forbidden.as_str());
            let Some(PathSegment::Field(key)) = error.path.first().filter(|_| is_refusal) else {
                continue;
            };
            let field = format!("{root}.{}", keys.field(key).unwrap_or_default());
            let origin = viewer.origin(self.caller.address, self.caller.request_id.clone());
            let refusals = self.services.identity.refusals();
            refusals.count_field(viewer, &field, None, &origin, self.caller.now);
        }
    }

    pub(crate) fn viewer(&self) -> Result<&Viewer> {
        self.viewer.as_ref().ok_or_else(|| Error::new(ErrorCode::Unauthenticated, SIGN_IN))
    }
}

/// Guard of the read transaction, which cannot end while any resolver holds a guard.
pub(crate) type ReadGuard = OwnedRwLockReadGuard<OnceCell<Tx>, Tx>;

async fn end(reading: &mut OnceCell<Tx>) {
    if let Some(tx) = reading.take()
        && let Err(error) = tx.commit().await
    {
        // No data is lost, because the transaction was read-only. The connection is closed.
        let error = &error as &dyn std::error::Error;
        tracing::debug!(error, "a read transaction did not end cleanly");
    }
}

/// Maximum time of all filters for text of one request.
const MAX_TEXT_FILTER: Duration = Duration::from_secs(2);

/// Message for a request whose filters for text took too long.
pub(crate) const TEXT_FILTER_TOO_SLOW: &str = "Filtering for text took longer than 2 s: filter by other fields as well, or for fewer texts at a time.";

/// Message that explains how to sign in.
pub(crate) const SIGN_IN: &str = "Sign in with the mutation login and send the header Authorization: Bearer <accessToken>, or an API key in its place.";

/// Access of resolvers to their request.
pub(crate) trait ContextExt<'a> {
    /// Returns the scope of the request: its caller and transactions.
    fn scope(&self) -> &'a RequestScope;

    /// Returns the signed-in caller. Never fails below a field that requires authentication, because the document check
    /// has rejected anonymous callers.
    fn viewer(&self) -> Result<&'a Viewer> {
        self.scope().viewer()
    }

    /// Returns the signed-in caller; `None` for an anonymous caller.
    fn optional_viewer(&self) -> Option<&'a Viewer> {
        self.scope().viewer.as_ref()
    }

    /// Returns the client address, id and time of the request.
    fn caller(&self) -> &'a RequestInfo {
        &self.scope().caller
    }

    /// Returns the time of the request, which is the same for all of its resolvers.
    fn now(&self) -> DateTime<Utc> {
        self.scope().caller.now
    }

    /// Returns the services of the process.
    fn services(&self) -> &'a Services {
        &self.scope().services
    }

    /// Returns the request's read transaction.
    async fn read(&self) -> Result<ReadGuard> {
        self.scope().read().await
    }

    /// Begins a transaction that changes rows of the viewer's organization. Ends the read transaction first.
    async fn write(&self) -> Result<Tx> {
        let scope = self.scope();
        scope.finish().await;
        let viewer = scope.viewer()?;
        let origin = viewer.origin(scope.caller.address, scope.caller.request_id.clone());
        Ok(scope.services.db.write(viewer.org, origin).await?)
    }

    /// Begins a transaction that changes users, memberships, sessions and API keys. Ends the read transaction first.
    async fn write_users(&self) -> Result<Tx<Auth>> {
        let scope = self.scope();
        scope.finish().await;
        let viewer = scope.viewer()?;
        let origin = viewer.origin(scope.caller.address, scope.caller.request_id.clone());
        Ok(scope.services.db.auth(origin).await?)
    }

    /// Takes one token from each of these buckets of a quota. Returns `RATE_LIMITED` if a bucket is empty.
    async fn take_tokens(&self, quota: &Quota, keys: &[&str]) -> Result<()> {
        Error::of_decision(self.services().limiter.take(quota, keys).await)
    }

    /// Takes one token for `action` from the bucket of the caller's address, and of the networks around an IPv6 address.
    /// Returns `RATE_LIMITED` if a bucket is empty.
    async fn take_token_of_address(&self, quota: &Quota, action: &str) -> Result<()> {
        let address = self.caller().address;
        Error::of_decision(self.services().limiter.take_of_address(quota, action, address).await)
    }
}

impl<'a> ContextExt<'a> for Context<'a> {
    fn scope(&self) -> &'a RequestScope {
        self.data_unchecked::<Arc<RequestScope>>()
    }
}
